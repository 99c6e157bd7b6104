"""Our reading and writing of layers against the kernel's own overlayfs."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.images.merged import MergedTree
from runtime.images.pack import pack
from runtime.images.unpack import unpack
from runtime.linux import mounts
from tests.unit.runtime.images.archives import archive, directory, hardlink, member, symlink
from tests.unit.runtime.images.test_pack import describe

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

LAYERS = (
    (directory("d"), member("d/a", b"1"), member("d/b", b"1"), directory("gone"),
     member("gone/x"), directory("opaque"), member("opaque/old"), member("file", b"1"),
     directory("becomes-file"), member("becomes-file/x"), symlink("link", "d"),
     directory("usr"), symlink("lib", "usr/lib"), directory("usr/lib")),
    (member("d/.wh.a"), member("d/c", b"2"), member(".wh.gone"), member("opaque/.wh..wh..opq"),
     member("opaque/new", b"2"), member("becomes-file", b"2"), member("lib/added", b"2"),
     hardlink("hard", "d/c"), member(".wh.nothing")),
    (directory("gone"), member("gone/again", b"3"), member("d/.wh.c"), member(".wh.link"),
     directory("file"), member("file/inside", b"3")),
)  # fmt: skip


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    made: list[Path] = []
    for number, members in enumerate(LAYERS):
        layer = tmp_path / str(number)
        layer.mkdir()
        with MergedTree(made) as lower:
            unpack(archive(*members), layer, lower=lower)
        made.append(layer)
    return made


@pytest.fixture
def mounted(layers: list[Path]) -> Iterator[int]:
    fd = mounts.new_filesystem(
        "overlay", {"lowerdir": ":".join(str(layer) for layer in reversed(layers))}
    )
    yield fd
    os.close(fd)


def listing(tree: MergedTree) -> dict[str, tuple[int, bytes | None]]:
    found: dict[str, tuple[int, bytes | None]] = {}
    pending: list[tuple[bytes, ...]] = [()]
    while pending:
        parts = pending.pop()
        for name in tree.names(parts):
            here = (*parts, name)
            entry = tree.entry(here)
            assert entry is not None
            content = None
            if entry.is_directory:
                pending.append(here)
            elif entry.is_link:
                content = entry.readlink()
            else:
                content = tree.read(b"/".join(here))
            found[os.fsdecode(b"/".join(here))] = (entry.status.st_mode, content)
    return found


def test_the_merged_tree_is_what_the_kernel_mounts(layers: list[Path], mounted: int) -> None:
    with MergedTree(layers) as ours, MergedTree((f"/proc/self/fd/{mounted}",)) as kernels:
        assert listing(ours) == listing(kernels)
        assert set(listing(ours)) == {
            "becomes-file", "d", "d/b", "file", "file/inside", "gone", "gone/again", "hard",
            "lib", "opaque", "opaque/new", "usr", "usr/lib", "usr/lib/added",
        }  # fmt: skip


def test_a_layer_written_through_the_kernel_is_packed_whole(
    layers: list[Path], tmp_path: Path
) -> None:
    upper, work, again = (tmp_path / name for name in ("upper", "work", "again"))
    for path in (upper, work, again):
        path.mkdir()
    fd = mounts.new_filesystem(
        "overlay",
        {
            "lowerdir": ":".join(str(layer) for layer in reversed(layers)),
            "upperdir": str(upper),
            "workdir": str(work),
        },
    )
    root = Path(f"/proc/self/fd/{fd}")
    try:
        (root / "d/b").unlink()
        (root / "d/new").write_text("x")
        os.rename(root / "hard", root / "moved")
        (root / "gone/again").unlink()
        (root / "gone").rmdir()
        (root / "gone").mkdir()
        (root / "gone/third").write_text("y")
        os.chmod(root / "usr", 0o700)
        (root / "fresh").mkdir()
        with MergedTree((root,)) as tree:
            expected = listing(tree)
    finally:
        os.close(fd)
    out = io.BytesIO()
    with MergedTree(layers) as lower:
        pack(upper, out.write, lower=lower)
        out.seek(0)
        unpack(out, again, lower=lower)
    with MergedTree((*layers, again)) as tree:
        assert listing(tree) == expected


def test_devices_and_capabilities_survive(tmp_path: Path) -> None:
    upper, again = tmp_path / "upper", tmp_path / "again"
    upper.mkdir()
    again.mkdir()
    os.mknod(upper / "null", 0o20666, os.makedev(1, 3))
    os.chmod(upper / "null", 0o666)
    (upper / "ping").write_text("x")
    os.chown(upper / "ping", 5, 6)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(upper / "ping", "security.capability", capability)
    out = io.BytesIO()
    with MergedTree(()) as lower:
        pack(upper, out.write, lower=lower)
        out.seek(0)
        unpack(out, again, lower=lower)
    assert describe(again) == describe(upper)
    assert (again / "null").stat().st_rdev == os.makedev(1, 3)
    assert os.getxattr(again / "ping", "security.capability") == capability
