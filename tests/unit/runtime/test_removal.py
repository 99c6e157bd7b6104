"""Removing trees of whatever depth."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.removal import discard


def nest(place: Path, levels: int) -> None:
    """Directories in one another, with a file in each."""
    here = os.open(place, os.O_PATH | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_PATH | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_tree_goes_however_deep_and_links_out_of_it_lead_nowhere(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    tree = tmp_path / "tree"
    for name in ("a", "b/c", "b/e/f"):
        (tree / name).mkdir(parents=True)
    (tree / "b" / "link").symlink_to(kept)
    (tree / "b" / "c" / "up").symlink_to("../../..")
    nest(tree, 1200)
    open_before = len(os.listdir("/proc/self/fd"))
    discard(tree)
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert [path.name for path in kept.iterdir()] == ["file"]


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    discard(tmp_path / "absent")
