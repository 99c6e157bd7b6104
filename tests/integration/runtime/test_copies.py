"""Copying files into and out of containers."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time
from pathlib import Path

import pytest

from runtime.container.archive import Rules, deliver, find
from runtime.container.config import Mount
from runtime.container.tarball import pack, unpack
from runtime.container.tree import open_tree
from tests.integration.runtime.yard import Yard

SKIPPED: list[str] = []


def rules(*, archive: bool = False, plain: bool = False) -> Rules:
    return Rules(archive=archive, plain=plain, skipped=SKIPPED.append)


def take(yard: Yard, id: str, path: str, target: Path | str, *, follow: bool = False) -> None:
    with open_tree(yard.root, yard.sockets, id) as tree:
        place = find(tree.fd, path, follow=follow)
        try:
            assert place.status is not None, f"{path} is not there"
            name = os.path.basename(os.path.normpath("/" + path))
            deliver(place, name, None, str(target), rules(plain=True))
        finally:
            place.close()


def give(yard: Yard, id: str, source: Path | str, path: str, *, archive: bool = False) -> None:
    with open_tree(yard.root, yard.sockets, id) as tree:
        place = find(None, str(source), follow=False)
        try:
            name = os.path.basename(os.path.normpath(source))
            deliver(place, name, tree.fd, path, rules(archive=archive))
        finally:
            place.close()


@pytest.fixture(params=["running", "stopped"])
def container(request: pytest.FixtureRequest, yard: Yard, tmp_path: Path) -> str:
    volume = tmp_path / "volume"
    volume.mkdir()
    script = "mkdir -p /data/sub; echo one > /data/file; echo two > /data/sub/deep; "
    script += "ln -s file /data/link; echo kept > /volume/kept; chmod 4755 /data/file; echo ready; "
    script += "sleep 1000" if request.param == "running" else "exit 0"
    id = yard.start("sh", "-c", script, mounts=(Mount(source=str(volume), target="/volume"),))
    yard.wait_for_output(id, "ready")
    if request.param == "stopped":
        yard.finish(id)
    return id


def test_a_directory_comes_out_under_its_name_or_as_what_does_not_exist_yet(
    yard: Yard, container: str, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    take(yard, container, "/data", target)
    take(yard, container, "/data", tmp_path / "new")
    take(yard, container, "/data/.", target)

    for place in (target / "data", tmp_path / "new", target):
        assert (place / "file").read_text() == "one\n"
        assert (place / "sub" / "deep").read_text() == "two\n"
        assert os.readlink(place / "link") == "file"
        assert stat.S_IMODE((place / "file").stat().st_mode) == 0o755
        assert (place / "file").stat().st_uid == 0


def test_a_link_comes_out_as_itself_or_followed(yard: Yard, container: str, tmp_path: Path) -> None:
    take(yard, container, "/data/link", tmp_path / "as-link")
    take(yard, container, "data/link", tmp_path / "as-file", follow=True)
    assert os.readlink(tmp_path / "as-link") == "file"
    assert (tmp_path / "as-file").read_text() == "one\n"


def test_volumes_are_part_of_it(yard: Yard, container: str, tmp_path: Path) -> None:
    take(yard, container, "/volume/kept", tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "kept\n"
    give(yard, container, tmp_path / "kept", "/volume/given")
    assert (tmp_path / "volume" / "given").read_text() == "kept\n"


def test_files_go_in_and_are_there_when_it_runs(yard: Yard, container: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "text").write_text("hello\n")
    os.chown(source / "inner" / "text", 1000, 1000)
    give(yard, container, source, "/data")
    give(yard, container, source, "/fresh", archive=True)
    with pytest.raises(FileNotFoundError):
        give(yard, container, source / "inner" / "text", "/nowhere/")

    if yard.containers.get(container).status == "running":
        stat_of = "stat -c %u:%g"
        shown = yard.exec(
            container, "sh", "-c", f"{stat_of} /data/source/inner/text /fresh/inner/text"
        )
        assert shown.output == "0:0\n1000:1000\n"
    take(yard, container, "/data/source/inner/text", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "hello\n"
    assert str(yard.directory) not in Path("/proc/self/mountinfo").read_text()


def test_tar_streams_pass_both_ways(yard: Yard, container: str) -> None:
    stream = io.BytesIO()
    with open_tree(yard.root, yard.sockets, container) as tree:
        place = find(tree.fd, "/data", follow=False)
        pack(place, "data", stream, rules())
        place.close()
        stream.seek(0)
        with tarfile.open(fileobj=stream) as tar:
            assert {"data", "data/file", "data/sub/deep"} <= set(tar.getnames())
        stream.seek(0)
        target = find(tree.fd, "/tmp/", follow=True)
        directory = target.open_directory()
        unpack(stream, directory, rules(archive=True))
        os.close(directory)
        target.close()
        copied = find(tree.fd, "/tmp/data/sub/deep", follow=False)
        assert copied.status is not None and copied.status.st_size == 4
        copied.close()


def test_an_archive_reaches_nothing_outside(yard: Yard, container: str, tmp_path: Path) -> None:
    def archive(*members: tuple[str, str]) -> io.BytesIO:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for name, link in members:
                member = tarfile.TarInfo(name)
                if link:
                    member.type, member.linkname = tarfile.SYMTYPE, link
                tar.addfile(member)
        stream.seek(0)
        return stream

    victim = tmp_path / "victim"
    victim.mkdir()
    with open_tree(yard.root, yard.sockets, container) as tree:
        target = find(tree.fd, "/tmp/", follow=True)
        directory = target.open_directory()
        with pytest.raises(OSError, match="outside"):
            unpack(archive(("../escaped", "")), directory, rules())
        unpack(archive(("out", str(victim)), ("out/file", "")), directory, rules())
        os.close(directory)
        target.close()
    assert list(victim.iterdir()) == []


def test_links_that_are_swapped_meanwhile_lead_neither_in_nor_out(
    yard: Yard, tmp_path: Path
) -> None:
    secret = tmp_path / "host"
    secret.mkdir()
    (secret / "file").write_text("secret of the host\n")
    script = f"""
    mkdir -p /{secret} /real; echo inside > /real/file
    mkdir /d; echo inside > /d/file; echo ready
    while :; do
      mv /d /e; ln -s {secret} /d; rm -f /d; mv /e /d
    done 2>/dev/null
    """
    id = yard.start("sh", "-c", script)
    yard.wait_for_output(id, "ready")
    given = tmp_path / "given"
    given.write_text("given\n")
    end = time.monotonic() + 4
    rounds = copied = 0
    while time.monotonic() < end:
        rounds += 1
        target = tmp_path / f"out{rounds}"
        try:
            take(yard, id, "/d/file", target)
        except (OSError, AssertionError):
            pass
        else:
            copied += 1
            assert target.read_text() == "inside\n"
        try:
            give(yard, id, given, "/d/given")
        except OSError:
            continue
    assert copied, "not one copy succeeded"
    assert sorted(path.name for path in secret.iterdir()) == ["file"]
    assert (secret / "file").read_text() == "secret of the host\n"


def test_devices_and_pipes_are_left_out_and_nothing_waits_for_them(
    yard: Yard, tmp_path: Path
) -> None:
    id = yard.start(
        "sh", "-c", "mkdir /x; mknod /x/pipe p; mknod /x/null c 1 3; echo ready; sleep 1000"
    )
    yard.wait_for_output(id, "ready")
    SKIPPED.clear()
    take(yard, id, "/x", tmp_path / "x")
    assert sorted(SKIPPED) == ["null", "pipe"]
    assert list((tmp_path / "x").iterdir()) == []
