"""Changes are found by comparing, whatever order they came about in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from orchestrator.watch.forest import Change, Forest


class Directories:
    """Notes which directories are watched."""

    def __init__(self) -> None:
        self.watched: set[str] = set()

    def enter(self, directory: str) -> None:
        os.listdir(directory)
        self.watched.add(directory)

    def holds(self, directory: str) -> bool:
        return directory in self.watched

    def leave(self, directory: str) -> None:
        self.watched.discard(directory)


class Garden:
    """A forest with one root, and what it says."""

    def __init__(self, root: Path, *, left_out: tuple[str, ...] = ()) -> None:
        self.root = root
        self.directories = Directories()
        self.warnings: list[str] = []
        self.forest = Forest(self.directories, self.warnings.append)
        self._left_out = left_out
        self.plant(root)

    def plant(self, *roots: Path) -> list[Change]:
        return self.forest.plant(
            map(str, roots), lambda path, directory: os.path.basename(path) not in self._left_out
        )

    def refresh(self, *names: str) -> list[tuple[str, str, bool]]:
        return self._shown(self.forest.refresh(str(self.root / name) for name in names))

    def rescan(self) -> list[tuple[str, str, bool]]:
        return self._shown(self.forest.rescan())

    def _shown(self, changes: list[Change]) -> list[tuple[str, str, bool]]:
        return [
            (os.path.relpath(change.path, self.root), change.kind, change.there)
            for change in changes
        ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "one.txt").write_text("one")
    (place / "a" / "b" / "two.txt").write_text("two")
    _age(place)
    return place


def _age(place: Path) -> None:
    """Wait until the clock has moved on since all files were written."""
    newest = max(path.lstat().st_ctime_ns for path in place.rglob("*"))
    while time.time_ns() < newest + 30_000_000:
        time.sleep(0.005)


def test_what_is_there_at_first_is_no_change(root: Path) -> None:
    garden = Garden(root)

    assert garden.rescan() == []
    assert garden.refresh("a/one.txt", "a", "a/b/two.txt") == []


def test_content_mode_and_a_new_inode_are_changes(root: Path) -> None:
    garden = Garden(root)
    (root / "a" / "one.txt").write_text("other")
    assert garden.refresh("a/one.txt") == [("a/one.txt", "file", True)]
    (root / "a" / "one.txt").chmod(0o755)
    assert garden.refresh("a/one.txt") == [("a/one.txt", "file", True)]
    shutil.copy2(root / "a" / "one.txt", root / "a" / "new")
    (root / "a" / "new").replace(root / "a" / "one.txt")
    assert garden.refresh("a/new", "a/one.txt") == [("a/one.txt", "file", True)]


def test_writes_within_one_tick_of_the_clock_are_all_changes(root: Path) -> None:
    garden = Garden(root)
    for number in range(20):
        (root / "a" / "one.txt").write_text(f"{number:3}")
        assert garden.refresh("a/one.txt") == [("a/one.txt", "file", True)]


def test_a_file_that_was_away_in_between_has_changed(root: Path) -> None:
    garden = Garden(root)
    (root / "a" / "one.txt").rename(root / "a" / "x")
    (root / "a" / "x").rename(root / "a" / "one.txt")

    assert garden.refresh("a/x", "a/one.txt") == [("a/one.txt", "file", True)]


def test_a_directory_that_appears_is_entered_with_all_that_is_in_it(root: Path) -> None:
    garden = Garden(root)
    (root / "n" / "m").mkdir(parents=True)
    (root / "n" / "m" / "deep.txt").write_text("deep")

    assert garden.refresh("n") == [
        ("n", "directory", True),
        ("n/m", "directory", True),
        ("n/m/deep.txt", "file", True),
    ]
    assert f"{root}/n/m" in garden.directories.watched


def test_a_renamed_directory_goes_and_comes(root: Path) -> None:
    garden = Garden(root)
    (root / "a").rename(root / "z")

    assert garden.refresh("a", "z") == [
        ("a", "directory", False),
        ("z", "directory", True),
        ("z/one.txt", "file", True),
        ("z/b", "directory", True),
        ("z/b/two.txt", "file", True),
    ]
    assert garden.directories.watched == {str(root.parent), str(root), f"{root}/z", f"{root}/z/b"}


def test_directories_that_change_places_are_compared_anew(root: Path) -> None:
    (root / "c").mkdir()
    (root / "c" / "three.txt").write_text("three")
    garden = Garden(root)
    (root / "a").rename(root / "x")
    (root / "c").rename(root / "a")
    (root / "x").rename(root / "c")
    _age(root)

    assert ("a/three.txt", "file", True) in garden.refresh("a", "c", "x")
    assert garden.rescan() == []


def test_a_directory_that_moves_away_while_it_is_entered_is_entered_when_it_is_back(
    root: Path,
) -> None:
    garden = Garden(root)
    (root / "n").mkdir()
    (root / "n" / "f.txt").write_text("f")
    enter = garden.directories.enter

    def moving(directory: str) -> None:
        if directory == f"{root}/n":
            (root / "n").rename(root / "away")
        enter(directory)

    garden.directories.enter = moving  # type: ignore[method-assign]  # for the first time
    assert garden.refresh("n") == [("n", "directory", True)]
    garden.directories.enter = enter  # type: ignore[method-assign]
    (root / "away").rename(root / "n")

    assert ("n/f.txt", "file", True) in garden.refresh("n", "away")


def test_a_directory_that_has_the_inode_of_one_that_was_removed_is_another(root: Path) -> None:
    garden = Garden(root)
    # What the kernel says when a directory goes: its watch is gone, too.
    garden.directories.leave(f"{root}/a")
    (root / "a" / "new.txt").write_text("new")

    assert ("a/new.txt", "file", True) in garden.refresh("a")


def test_a_file_in_place_of_a_directory_and_back(root: Path) -> None:
    garden = Garden(root)
    shutil.rmtree(root / "a")
    (root / "a").write_text("a")
    assert garden.refresh("a") == [("a", "directory", False), ("a", "file", True)]
    (root / "a").unlink()
    (root / "a").symlink_to("nowhere")
    assert garden.refresh("a") == [("a", "file", False), ("a", "link", True)]


def test_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    garden = Garden(root)
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(".")

    assert garden.refresh("link", "loop") == [("link", "link", True), ("loop", "link", True)]


def test_a_root_that_goes_takes_only_what_came_from_it(root: Path) -> None:
    (root / "top.txt").write_text("top")
    garden = Garden(root)
    shutil.rmtree(root)

    assert garden.refresh("") == [("a", "directory", False), ("top.txt", "file", False)]
    root.mkdir()
    (root / "again.txt").write_text("again")
    assert garden.refresh("") == [(".", "directory", True), ("again.txt", "file", True)]


def test_a_root_may_come_later_with_all_that_leads_to_it(tmp_path: Path) -> None:
    garden = Garden(tmp_path / "x" / "y" / "root")
    assert garden.forest.concerns(f"{tmp_path}/x")
    (garden.root).mkdir(parents=True)
    (garden.root / "a.txt").write_text("a")

    changes = garden.forest.refresh([f"{tmp_path}/x"])

    assert [change.path for change in changes] == [str(garden.root), f"{garden.root}/a.txt"]
    assert str(garden.root) in garden.directories.watched


def test_a_single_file_may_be_a_root(tmp_path: Path) -> None:
    garden = Garden(tmp_path / "app.conf")
    (tmp_path / "other.conf").write_text("x")
    assert not garden.forest.concerns(f"{tmp_path}/other.conf")
    (tmp_path / "app.conf").write_text("x")

    assert garden.refresh("") == [(".", "file", True)]
    (tmp_path / "app.conf").unlink()
    assert garden.refresh("") == [(".", "file", False)]


def test_roots_within_one_another_are_one_tree(root: Path) -> None:
    garden = Garden(root)
    garden.plant(root, root / "a", root / "a" / "b")
    (root / "a" / "b" / "two.txt").write_text("changed")

    assert garden.refresh("a/b/two.txt") == [("a/b/two.txt", "file", True)]
    garden.plant(root / "a" / "b")
    assert not garden.forest.concerns(f"{root}/a/one.txt")
    assert garden.directories.watched == {f"{root}/a", f"{root}/a/b"}


def test_other_roots_lose_no_change_of_the_former_ones(root: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "there.txt").write_text("x")
    garden = Garden(root)
    (root / "a" / "one.txt").write_text("changed")

    changes = garden.plant(root, tmp_path / "more")

    assert [change.path for change in changes] == [f"{root}/a/one.txt"]


def test_what_is_left_out_is_neither_entered_nor_a_change(root: Path) -> None:
    (root / "node_modules" / "x").mkdir(parents=True)
    garden = Garden(root, left_out=("node_modules",))
    (root / "node_modules" / "x" / "y.js").write_text("y")

    assert garden.rescan() == []
    assert not any("node_modules" in directory for directory in garden.directories.watched)


def test_a_rescan_finds_whatever_was_missed(root: Path) -> None:
    garden = Garden(root)
    (root / "a" / "b" / "two.txt").unlink()
    (root / "a" / "new.txt").write_text("new")
    (root / "a" / "one.txt").write_text("changed")
    _age(root)

    assert sorted(garden.rescan()) == [
        ("a/b/two.txt", "file", False),
        ("a/new.txt", "file", True),
        ("a/one.txt", "file", True),
    ]
    assert garden.rescan() == []


def test_a_directory_that_may_not_be_read_is_named_once_and_does_not_stop_the_rest() -> None:
    place = Path(tempfile.mkdtemp(prefix="watched-", dir="/tmp"))
    try:
        for name in ("a", "m", "z"):
            (place / name).mkdir()
            (place / name / "f.txt").write_text("f")
            (place / name / "f.txt").chmod(0o666)
        (place / "m").chmod(0)
        place.chmod(0o755)
        warnings, changes = _as_nobody(place)
    finally:
        (place / "m").chmod(0o700)
        shutil.rmtree(place)

    assert warnings == [f"{place}/m is not watched: permission denied"]
    assert changes == ["a/f.txt", "z/f.txt"]


def _as_nobody(place: Path) -> tuple[list[str], list[str]]:
    """What a forest says and finds below `place` where root's rights are given up."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            garden = Garden(place)
            for name in ("a", "z"):
                (place / name / "f.txt").write_text("changed")
            changes = sorted({name for name, _, _ in (*garden.rescan(), *garden.rescan())})
            os.write(write, json.dumps([garden.warnings, changes]).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    warnings, changes = json.loads(text)
    return warnings, changes


def test_a_tree_that_is_deeper_than_calls_can_be_comes_and_goes(root: Path) -> None:
    garden = Garden(root)
    path = str(root)
    for _ in range(1200):
        path += "/d"
        os.mkdir(path)
    assert len(garden.rescan()) == 1200
    assert sum(1 for _ in garden.forest.below(str(root / "d"))) == 1200
    os.rename(root / "d", root.parent / "elsewhere")
    assert garden.rescan() == [("d", "directory", False)]
    assert not any(os.path.basename(path) == "d" for path in garden.directories.watched)
    subprocess.run(["rm", "-rf", str(root.parent / "elsewhere")], check=True)
