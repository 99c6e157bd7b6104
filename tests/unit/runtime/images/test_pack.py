"""Packing an upper directory, and the way back."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import tarfile
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images.merged import MergedTree
from runtime.images.pack import pack
from runtime.images.unpack import unpack

OPAQUE = "trusted.overlay.opaque" if os.geteuid() == 0 else "user.overlay.opaque"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("upper", "lower", "again"):
        (tmp_path / name).mkdir()
    return tmp_path


def packed(place: Path, epoch: int | None = None) -> bytes:
    out = io.BytesIO()
    with MergedTree((place / "lower",)) as lower:
        pack(place / "upper", out.write, lower=lower, epoch=epoch)
    return out.getvalue()


def names(content: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return tar.getnames()


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


def test_members_come_in_order_with_parents_first(place: Path) -> None:
    for path in ("b/c/d", "a", "b/a"):
        (place / "upper" / path).parent.mkdir(parents=True, exist_ok=True)
        (place / "upper" / path).write_text(path)
    assert names(packed(place)) == ["a", "b", "b/a", "b/c", "b/c/d"]


def test_a_whiteout_gets_its_archive_form(place: Path) -> None:
    (place / "lower/d").mkdir()
    (place / "lower/d/gone").touch()
    (place / "upper/d").mkdir()
    whiteout(place / "upper/d/gone")
    assert names(packed(place)) == ["d", "d/.wh.gone"]


def test_a_whiteout_of_nothing_is_left_out(place: Path) -> None:
    whiteout(place / "upper/never")
    assert names(packed(place)) == []


def test_an_opaque_directory_is_marked_where_it_hides_something(place: Path) -> None:
    (place / "lower/hides").mkdir()
    for name in ("hides", "new"):
        (place / "upper" / name).mkdir()
        os.setxattr(place / "upper" / name, OPAQUE, b"y")
    assert names(packed(place)) == ["hides", "hides/.wh..wh..opq", "new"]


def test_a_file_called_like_a_whiteout_is_refused(place: Path) -> None:
    (place / "upper/.wh.x").touch()
    with pytest.raises(ImageError, match=r"\.wh\.x"):
        packed(place)


def test_sockets_are_left_out(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place / "upper/s"))
        assert names(packed(place)) == []


def test_the_same_tree_gives_the_same_archive(place: Path) -> None:
    (place / "upper/f").write_text("x")
    assert packed(place) == packed(place)


def test_no_time_is_later_than_the_epoch(place: Path) -> None:
    (place / "upper/new").write_text("x")
    (place / "upper/old").write_text("x")
    os.utime(place / "upper/old", (5, 5))
    with tarfile.open(fileobj=io.BytesIO(packed(place, epoch=1000))) as tar:
        assert {info.name: info.mtime for info in tar} == {"new": 1000, "old": 5}


def test_a_tree_survives_packing_and_unpacking(place: Path) -> None:
    upper = place / "upper"
    (upper / "d").mkdir(mode=0o711)
    (upper / "d/f").write_bytes(os.urandom(3_000_000))
    os.chmod(upper / "d/f", 0o4751)
    os.setxattr(upper / "d/f", "user.x", b"\0y")
    os.link(upper / "d/f", upper / "hard")
    os.symlink("d/f", upper / "soft")
    os.mkfifo(upper / "fifo")
    (upper / ("long" * 60)).write_text("long name")
    (upper / "ünicode").write_text("x")
    os.utime(upper / "d/f", ns=(1, 1_234_567_890_987_654_321))
    content = packed(place)
    with MergedTree(()) as lower:
        unpack(io.BytesIO(content), place / "again", lower=lower)
    assert describe(place / "again") == describe(upper)


def describe(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for directory, folders, files in sorted(os.walk(root)):
        for name in sorted(folders + files):
            path = Path(directory, name)
            status = path.lstat()
            key = str(path.relative_to(root))
            first = inodes.setdefault(status.st_ino, key)
            content = (
                os.readlink(path)
                if path.is_symlink()
                else hashlib.sha256(path.read_bytes()).hexdigest()
                if path.is_file()
                else None
            )
            attributes = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            }
            found[key] = (status.st_mode, status.st_uid, status.st_mtime_ns, content, first,
                          attributes)  # fmt: skip
    return found
