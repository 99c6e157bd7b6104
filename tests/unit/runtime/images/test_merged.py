"""The merged view of layers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.images.merged import MergedTree, split

OPAQUE = "trusted.overlay.opaque" if os.geteuid() == 0 else "user.overlay.opaque"


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("low", "middle", "top")]
    for layer in made:
        layer.mkdir()
    return made


@pytest.fixture
def tree(layers: list[Path]) -> Iterator[MergedTree]:
    with MergedTree(layers) as tree:
        yield tree


def test_the_topmost_layer_wins(layers: list[Path], tree: MergedTree) -> None:
    (layers[0] / "f").write_text("low")
    (layers[2] / "f").write_text("top")
    assert tree.read(b"/f") == b"top"


def test_directories_merge(layers: list[Path], tree: MergedTree) -> None:
    for number, layer in enumerate(layers):
        (layer / "d").mkdir()
        (layer / f"d/{number}").touch()
    assert tree.names((b"d",)) == [b"0", b"1", b"2"]


def test_a_whiteout_hides_and_a_later_layer_may_bring_it_back(
    layers: list[Path], tree: MergedTree
) -> None:
    for name in ("a", "b"):
        (layers[0] / name).touch()
        os.mknod(layers[1] / name, stat.S_IFCHR, 0)
    (layers[2] / "b").touch()
    assert tree.find(b"/a") is None
    assert tree.find(b"/b") is not None
    assert tree.names(()) == [b"b"]


def test_an_opaque_directory_hides_what_lies_below(layers: list[Path], tree: MergedTree) -> None:
    for layer in layers:
        (layer / "d").mkdir()
    (layers[0] / "d/old").touch()
    os.setxattr(layers[1] / "d", OPAQUE, b"y")
    (layers[2] / "d/new").touch()
    assert tree.names((b"d",)) == [b"new"]
    assert tree.find(b"/d/old") is None


def test_a_file_over_a_directory_hides_it(layers: list[Path], tree: MergedTree) -> None:
    (layers[0] / "x").mkdir()
    (layers[0] / "x/y").touch()
    (layers[1] / "x").touch()
    assert tree.find(b"/x/y") is None


def test_links_are_followed_with_the_root_as_root(layers: list[Path], tree: MergedTree) -> None:
    (layers[0] / "usr/lib").mkdir(parents=True)
    (layers[0] / "usr/lib/f").write_text("found")
    os.symlink("usr/lib", layers[1] / "lib")
    os.symlink("/../../../lib/./f", layers[2] / "way")
    assert tree.resolve(split(b"way")) == (b"usr", b"lib", b"f")
    assert tree.read(b"/way") == b"found"


def test_a_path_that_climbs_stays_at_the_root(layers: list[Path], tree: MergedTree) -> None:
    (layers[0] / "f").write_text("x")
    assert tree.read(b"/../../../../f") == b"x"
    assert tree.read(b"/../../../etc/passwd") is None


def test_a_loop_of_links_is_an_error(layers: list[Path], tree: MergedTree) -> None:
    os.symlink("b", layers[0] / "a")
    os.symlink("a", layers[1] / "b")
    with pytest.raises(OSError, match="oo many"):
        tree.find(b"/a")


def test_a_fifo_is_not_read(layers: list[Path], tree: MergedTree) -> None:
    os.mkfifo(layers[0] / "passwd")
    with pytest.raises(OSError, match="not a regular file"):
        tree.read(b"/passwd")


def test_a_deep_tree_needs_few_descriptors(layers: list[Path], tree: MergedTree) -> None:
    path = layers[0]
    for number in range(200):
        path = path / f"d{number}"
        path.mkdir()
    (path / "f").write_text("deep")
    inner = os.fsencode(path.relative_to(layers[0]) / "f")
    assert tree.read(inner) == b"deep"
    assert len(os.listdir("/proc/self/fd")) < 120
