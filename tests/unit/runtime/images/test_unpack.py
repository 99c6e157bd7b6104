"""Unpacking layers: faithful where they are honest, refused where they are not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images.merged import MergedTree
from runtime.images.tar_reader import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO
from runtime.images.unpack import Limits, unpack
from tests.unit.runtime.images.archives import archive, directory, hardlink, member, symlink
from tests.unit.runtime.images.test_tar_reader import sparse_1_0

OPAQUE = "trusted.overlay.opaque" if os.geteuid() == 0 else "user.overlay.opaque"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "layer").mkdir()
    (tmp_path / "lower").mkdir()
    (tmp_path / "outside").mkdir()
    return tmp_path


def apply(place: Path, *members: bytes, limits: Limits | None = None) -> Path:
    with MergedTree((place / "lower",)) as lower:
        unpack(archive(*members), place / "layer", lower=lower, limits=limits)
    return place / "layer"


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return OPAQUE in os.listxattr(path)


def test_files_directories_and_links_are_made(place: Path) -> None:
    root = apply(
        place,
        directory("d", mode=0o750, mtime_ns=5_000_000_007),
        member("d/f", b"hello", mode=0o4755, mtime_ns=1_000_000_001, xattrs={b"user.x": b"y"}),
        symlink("d/l", "/etc/passwd"),
        hardlink("h", "d/f"),
    )
    status = (root / "d/f").stat()
    assert (root / "d/f").read_bytes() == b"hello"
    assert stat.S_IMODE(status.st_mode) == 0o4755
    assert status.st_mtime_ns == 1_000_000_001
    assert os.getxattr(root / "d/f", "user.x") == b"y"
    assert os.readlink(root / "d/l") == "/etc/passwd"
    assert (root / "h").stat().st_ino == status.st_ino
    assert (root / "d").stat().st_mtime_ns == 5_000_000_007
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o750


def test_a_fifo_is_made(place: Path) -> None:
    root = apply(place, member("p", kind=FIFO))
    assert stat.S_ISFIFO((root / "p").stat().st_mode)


def test_a_sparse_file_keeps_its_holes(place: Path) -> None:
    root = apply(place, sparse_1_0())
    assert (root / "s").read_bytes() == b"abc" + bytes(8997) + b"defg" + bytes(996)


def test_a_later_entry_replaces_an_earlier_one(place: Path) -> None:
    root = apply(
        place,
        member("a", b"1"),
        directory("b"),
        member("b/x", b"1"),
        member("a", b"2"),
        member("b", b"now a file"),
        symlink("c", "nowhere"),
        directory("c"),
    )
    assert (root / "a").read_bytes() == b"2"
    assert (root / "b").read_bytes() == b"now a file"
    assert (root / "c").is_dir()


def test_a_whiteout_becomes_overlayfs_own(place: Path) -> None:
    (place / "lower/gone").touch()
    assert is_whiteout(apply(place, member(".wh.gone")) / "gone")


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_speaks_of_lower_layers_whatever_the_order(place: Path, order: int) -> None:
    members = (member(".wh.d"), directory("d"), member("d/x", b"new"))[::order]
    root = apply(place, *members)
    assert (root / "d/x").read_bytes() == b"new"
    assert is_opaque(root / "d")


@pytest.mark.parametrize("order", [1, -1])
def test_an_opaque_mark_keeps_the_layers_own_content(place: Path, order: int) -> None:
    members = (directory("d"), member("d/.wh..wh..opq"), member("d/x", b"new"))[::order]
    root = apply(place, *members)
    assert (root / "d/x").read_bytes() == b"new"
    assert is_opaque(root / "d")
    assert sorted(os.listdir(root / "d")) == ["x"]


def test_an_opaque_root_hides_every_lower_name(place: Path) -> None:
    (place / "lower/a").touch()
    (place / "lower/d").mkdir()
    root = apply(place, member(".wh..wh..opq"), directory("d"))
    assert is_whiteout(root / "a")
    assert is_opaque(root / "d")


def test_marks_of_aufs_are_passed_over(place: Path) -> None:
    root = apply(place, member(".wh..wh.aufs"), directory(".wh..wh.plnk"),
                 member(".wh..wh.plnk/1.2", b"x"))  # fmt: skip
    assert os.listdir(root) == []


def test_a_missing_parent_looks_like_the_lower_one(place: Path) -> None:
    (place / "lower/d").mkdir(mode=0o701)
    os.chmod(place / "lower/d", 0o701)
    os.utime(place / "lower/d", ns=(7, 7_000_000_000))
    root = apply(place, member("d/x"))
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o701
    assert (root / "d").stat().st_mtime_ns == 7_000_000_000


def test_a_link_of_a_lower_layer_is_followed(place: Path) -> None:
    (place / "lower/usr/lib").mkdir(parents=True)
    os.symlink("usr/lib", place / "lower/lib")
    root = apply(place, member("lib/x", b"1"))
    assert (root / "usr/lib/x").read_bytes() == b"1"
    assert not os.path.lexists(root / "lib")


def test_a_lower_link_that_points_outside_stays_inside(place: Path) -> None:
    os.symlink(str(place / "outside"), place / "lower/evil")
    os.symlink("../../../../outside", place / "lower/up")
    apply(place, member("evil/x"), member("up/y"))
    assert os.listdir(place / "outside") == []


def test_a_hard_link_to_a_lower_file_copies_it_up(place: Path) -> None:
    (place / "lower/f").write_bytes(b"below")
    root = apply(place, hardlink("h", "f"))
    assert (root / "h").read_bytes() == b"below"
    assert (root / "h").stat().st_nlink == 2


HOSTILE = {
    "parent": [member("../x")],
    "parent inside": [member("a/../../x")],
    "parent at the end": [member("a/..", kind=DIRECTORY)],
    "through a link": [symlink("l", "../outside"), member("l/x")],
    "through an absolute link": [symlink("l", "/tmp"), member("l/x")],
    "through a link of a link": [symlink("a", ".."), symlink("b", "a"), member("b/x")],
    "directory through a link": [symlink("l", "../outside"), directory("l/d")],
    "hard link outside": [hardlink("h", "../outside/x")],
    "hard link to nothing": [hardlink("h", "nothing")],
    "hard link to a directory": [directory("d"), hardlink("h", "d")],
    "hard link to the root": [hardlink("h", "/")],
    "hard link to a whiteout": [member(".wh.w"), hardlink("h", "w")],
    "hard link to a whiteout's name": [hardlink("h", ".wh.x")],
    "file below a file": [member("f"), member("f/x")],
    "overlay's whiteout": [member("w", kind=CHARACTER)],
    "root as a file": [member(".")],
    "root as a link": [symlink(".", "/")],
    "nameless whiteout": [member(".wh.")],
    "whiteout of itself": [member(".wh..")],
    "whiteout of the parent": [member(".wh...")],
    "whiteout of a path's parent": [member("d/.wh...")],
    "below a whiteout": [member(".wh.d/x")],
    "giant owner": [member("a", uid=2**40)],
    "nested too deeply": [directory("d/" * 257)],
    "file nested too deeply": [member("d/" * 1200 + "f")],
    "long component": [member("x" * 300)],
    "unknown kind": [member("a", kind=b"Z")],
    "device out of range": [member("a", kind=BLOCK_DEVICE, major=0o77777, minor=1)],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_layer_is_refused_and_writes_nothing_outside(place: Path, case: str) -> None:
    before = sorted(os.listdir(place))
    with pytest.raises(ImageError) as caught:
        apply(place, *HOSTILE[case])
    assert sorted(os.listdir(place)) == before
    assert os.listdir(place / "outside") == []
    assert "layer entry '" in str(caught.value) or "tar: '" in str(caught.value)


def test_an_absolute_name_is_taken_from_the_layers_root(place: Path) -> None:
    root = apply(place, member("/abs/x", b"1"))
    assert (root / "abs/x").read_bytes() == b"1"


def test_overlay_attributes_are_not_taken_over(place: Path) -> None:
    attributes = {b"trusted.overlay.opaque": b"y", b"trusted.overlay.redirect": b"/etc",
                  b"user.overlay.opaque": b"y"}  # fmt: skip
    root = apply(place, member("d/", kind=DIRECTORY, xattrs=attributes))
    assert os.listxattr(root / "d") == []


def test_too_many_entries_are_refused(place: Path) -> None:
    with pytest.raises(ImageError, match="more than 2 entries"):
        apply(place, member("a"), member("b"), member("c"), limits=Limits(entries=2))


def test_too_many_bytes_are_refused_before_they_are_written(place: Path) -> None:
    with pytest.raises(ImageError, match="more than 10 bytes"):
        apply(place, member("a", b"x" * 11), limits=Limits(stored=10))


def test_a_sparse_file_may_not_claim_more_than_the_limit(place: Path) -> None:
    with pytest.raises(ImageError, match="claims 10000"):
        apply(place, sparse_1_0(), limits=Limits(apparent=9999))


def test_names_of_any_bytes_are_kept(place: Path) -> None:
    root = apply(place, member(b"\xff\xfe", b"1"))
    assert os.listdir(os.fsencode(root)) == [b"\xff\xfe"]
