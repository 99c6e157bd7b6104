"""Paths that cannot leave a root, atomic writes, locks."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.linux import files, mounts
from runtime.linux.libc import libc

_EXCHANGE = 2  # renameat2(2)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A directory as "/", with links that try to lead out of it to `outside`."""
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (inside / "etc/passwd").write_text("inside\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("outside\n")
    (inside / "absolute").symlink_to("/etc/passwd")
    (inside / "climbing").symlink_to("../../../../../../../../etc/passwd")
    (inside / "above").symlink_to("..")
    (inside / "nowhere").symlink_to("/not/there")
    (inside / "self").symlink_to("self")
    (inside / "magic").symlink_to("/proc/self/root")
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _text(fd: int) -> str:
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "etc/passwd", "absolute", "climbing", "../../etc/passwd", "above/etc/passwd"],
)
def test_every_way_leads_to_the_file_inside(root: int, path: str) -> None:
    assert _text(files.open_in_root(root, path, os.O_RDONLY)) == "inside\n"


def test_links_that_lead_nowhere_or_in_a_ring_are_errors(root: int) -> None:
    with pytest.raises(FileNotFoundError):
        files.open_in_root(root, "nowhere")
    with pytest.raises(OSError, match="ymbolic") as caught:
        files.open_in_root(root, "self")
    assert caught.value.errno == errno.ELOOP


def test_magic_links_are_refused(tmp_path: Path) -> None:
    fd = os.open("/", os.O_PATH)
    try:
        with pytest.raises(OSError, match="ymbolic") as caught:
            files.open_in_root(fd, "/proc/self/root/etc")
    finally:
        os.close(fd)
    assert caught.value.errno == errno.ELOOP


def test_descriptors_are_closed_on_exec(root: int) -> None:
    fd = files.open_in_root(root, "/etc")
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_directories_are_made_inside(root: int, tmp_path: Path) -> None:
    fd = files.make_directories_in_root(root, "/etc/a/b", mode=0o750)
    assert os.path.samestat(os.fstat(fd), (tmp_path / "root/etc/a/b").stat())
    os.close(fd)
    assert stat.S_IMODE((tmp_path / "root/etc/a").stat().st_mode) == 0o750
    os.close(files.make_directories_in_root(root, "above/new"))
    assert (tmp_path / "root/new").is_dir() and not (tmp_path / "new").exists()
    os.close(files.make_directories_in_root(root, "/"))
    os.close(files.make_directories_in_root(root, ""))


def test_what_a_link_leads_to_is_made_inside(root: int, tmp_path: Path) -> None:
    os.close(files.make_directories_in_root(root, "nowhere/x"))
    assert (tmp_path / "root/not/there/x").is_dir()
    (tmp_path / "root/etc/relative").symlink_to("gone/deep")
    os.close(files.make_directories_in_root(root, "etc/relative/y"))
    assert (tmp_path / "root/etc/gone/deep/y").is_dir()
    (tmp_path / "root/file").symlink_to("/new/file")
    os.close(files.make_file_in_root(root, "file"))
    assert (tmp_path / "root/new/file").is_file()
    (tmp_path / "root/etc/here").symlink_to("other")
    os.close(files.make_file_in_root(root, "etc/here"))
    assert (tmp_path / "root/etc/other").is_file()


def test_directories_are_not_made_through_rings_or_dots(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/ring").symlink_to("ring2")
    (tmp_path / "root/ring2").symlink_to("/ring/x")
    (tmp_path / "root/climbs").symlink_to("../../absent")
    for path in ("self/x", "ring", "climbs/x", "etc/passwd/x", "a/../../b"):
        with pytest.raises(OSError, match=r"\.\.|ymbolic|directory"):
            files.make_directories_in_root(root, path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["etc", "root"]


def test_a_file_is_made_where_it_is_missing(root: int, tmp_path: Path) -> None:
    os.close(files.make_file_in_root(root, "/deep/down/file", mode=0o600))
    made = tmp_path / "root/deep/down/file"
    assert made.read_bytes() == b"" and stat.S_IMODE(made.stat().st_mode) == 0o600
    fd = files.make_file_in_root(root, "absolute")
    assert os.path.samestat(os.fstat(fd), (tmp_path / "root/etc/passwd").stat())
    os.close(fd)
    with pytest.raises(OSError, match="ymbolic"):
        files.make_file_in_root(root, "self")


def test_a_swapping_link_never_leads_outside(root: int, tmp_path: Path) -> None:
    inside = tmp_path / "root"
    (inside / "spot").mkdir()
    (inside / "link").symlink_to(tmp_path)
    stop = threading.Event()

    spot, link = os.fsencode(inside / "spot"), os.fsencode(inside / "link")

    def swap() -> None:
        while not stop.is_set():
            libc.renameat2(mounts.AT_FDCWD, spot, mounts.AT_FDCWD, link, _EXCHANGE)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(500):
            try:
                os.close(files.make_directories_in_root(root, f"spot/d{number}/x"))
            except OSError as error:
                assert error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EAGAIN)
    finally:
        stop.set()
        thread.join()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["etc", "root"]


def test_only_regular_files_of_bounded_size_are_read(root: int, tmp_path: Path) -> None:
    inside = tmp_path / "root"
    assert files.read_in_root(root, "/etc/passwd") == b"inside\n"
    assert files.read_in_root(root, "/absent") is None
    assert files.read_in_root(root, "/etc/passwd/x") is None
    os.mkfifo(inside / "fifo")
    (inside / "huge").touch()
    os.truncate(inside / "huge", 1 << 40)
    for name, number in (("fifo", errno.EINVAL), ("etc", errno.EINVAL), ("huge", errno.EFBIG)):
        with pytest.raises(OSError, match=name) as caught:
            files.read_in_root(root, name)
        assert caught.value.errno == number


def test_an_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"one", mode=0o600)
    before = path.stat().st_ino
    files.write_atomically(path, b"two", mode=0o640)
    assert path.read_bytes() == b"two" and path.stat().st_ino != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_reader_sees_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([letter]) * 100_000 for letter in b"ab"]
    files.write_atomically(path, contents[0], durable=False)
    done = threading.Event()

    def write() -> None:
        for number in range(200):
            files.write_atomically(path, contents[number % 2], durable=False)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        assert path.read_bytes() in contents
    thread.join()


def test_a_failed_write_leaves_the_old_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write_atomically(path, b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with files.locked(path):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    entered = threading.Event()

    def wait() -> None:
        with files.locked(path):
            entered.set()
            assert path.exists()

    with files.locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        path.unlink()
    assert entered.wait(10)
    thread.join()


def test_a_lock_can_be_tried(tmp_path: Path) -> None:
    first = files.try_lock(tmp_path / "lock")
    assert first is not None
    assert files.try_lock(tmp_path / "lock") is None
    os.close(first)
    again = files.try_lock(tmp_path / "lock")
    assert again is not None
    os.close(again)


def test_what_a_killed_writer_left_is_removed_once_it_is_old_enough(tmp_path: Path) -> None:
    kept = ("config.json", ".config.json", ".hidden.deadbeef", ".config.json.ABCDEF012345")
    draft = tmp_path / ".config.json.0123456789ab"
    for path in (draft, *(tmp_path / name for name in kept)):
        path.touch()
    files.remove_drafts(tmp_path, age=100)
    assert draft.exists()
    os.utime(draft, (0, 0))
    files.remove_drafts(tmp_path, of="other.json")
    assert draft.exists()
    files.remove_drafts(tmp_path, age=100)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
