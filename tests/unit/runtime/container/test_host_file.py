"""Reading files of the host that change meanwhile."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.container.host_file import HostFile
from runtime.errors import FileRefused


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
def test_the_whole_content_is_copied(tmp_path: Path, out: int, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    with HostFile(str(tmp_path / "file")) as file:
        file.copy_to(out)
        assert file.same_content(out)
    assert (tmp_path / "out").read_bytes() == content


@pytest.mark.parametrize("size", [100, 1_000_000])
@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, out: int, size: int, change: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    os.utime(path, ns=(1, 1))
    with HostFile(str(path)) as file:
        path.write_bytes(b"y" * (size + {"grow": 1, "shrink": -1, "rewrite": 0}[change]))
        with pytest.raises(FileRefused, match="changed while it was read"):
            file.copy_to(out)


def test_a_file_that_is_replaced_or_removed_while_it_is_read_is_read_to_its_end(
    tmp_path: Path, out: int
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with HostFile(str(path)) as file:
        path.unlink()
        file.copy_to(out)
    assert (tmp_path / "out").read_text() == "old"


def test_holes_are_kept(tmp_path: Path, out: int) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as sparse:
        sparse.seek(8 * 1024 * 1024)
        sparse.write(b"x" * 5000)
        sparse.truncate(32 * 1024 * 1024)
    with HostFile(str(path)) as file:
        file.copy_to(out)
        assert file.same_content(out)
    assert os.fstat(out).st_blocks * 512 <= path.stat().st_blocks * 512 + 4096


def test_links_are_read_and_other_kinds_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    with HostFile(str(link)) as file:
        assert file.link == "nowhere" and not file.is_directory
    with HostFile(str(tmp_path)) as file:
        assert file.link is None and file.is_directory
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name in ("pipe", "socket"):
        with pytest.raises(FileRefused, match="neither a file"):
            HostFile(str(tmp_path / name))
    for name in ("absent", "pipe/below"):
        with pytest.raises(FileRefused, match="it is gone"):
            HostFile(str(tmp_path / name))
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(FileRefused, match="too many levels"):
        HostFile(str(loop / "below"))
