"""Whatever is done to a tree, and however fast, its copy ends up the same."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.engine.sync import Put
from orchestrator.watch.rules import Action, Rule, Rules
from orchestrator.watch.watching import Watching
from orchestrator.watch.work import Work, divide

OPERATIONS = 400


class Copy:
    """Follows a tree in a thread, and does to `target` what the changes say."""

    def __init__(self, source: Path, target: Path) -> None:
        self._target = target
        rule = Rule(
            service="web", action=Action.SYNC, path=str(source), target="/", origin="the test"
        )
        self._rules = Rules((rule,))
        self._watching = Watching(lambda message: None)
        self._watching.plant([str(source)], self._rules.wanted)
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        while (batch := self._watching.next()) is not None:
            for work in divide(batch.changes, self._rules.rules, batch.since).values():
                self._apply(work)

    def _apply(self, work: Work) -> None:
        for change in work.files.values():
            place = self._target / change.target.lstrip("/")
            if isinstance(change, Put):
                # What is another meanwhile is a change of its own.
                with contextlib.suppress(OSError):
                    _put(change.source, place)
            else:
                _remove(place)

    def close(self) -> None:
        self._watching.stop()
        self._thread.join()
        self._watching.close()


def _put(source: Path, place: Path) -> None:
    status = os.lstat(source)
    place.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(status.st_mode):
        if not place.is_dir() or place.is_symlink():
            _remove(place)
            place.mkdir()
        place.chmod(stat.S_IMODE(status.st_mode))
        return
    new = place.with_name(".new")
    _remove(new)
    try:
        shutil.copy(source, new, follow_symlinks=False)
    except FileNotFoundError:
        _remove(new)
        return
    if place.is_dir() and not place.is_symlink():
        _remove(place)
    new.replace(place)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _content(tree: Path) -> dict[str, tuple[int, str]]:
    found = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            shown = (0, os.readlink(path))
        elif stat.S_ISDIR(status.st_mode):
            shown = (stat.S_IMODE(status.st_mode), "")
        else:
            shown = (stat.S_IMODE(status.st_mode), path.read_text())
        found[str(path.relative_to(tree))] = shown
    return found


def _disturb(tree: Path, chance: random.Random) -> None:
    """One thing that a person, an editor or git may do."""
    entries = sorted(tree.rglob("*"))
    directories = [tree, *(path for path in entries if path.is_dir() and not path.is_symlink())]
    files = [path for path in entries if path.is_file() and not path.is_symlink()]
    place = chance.choice(directories) / f"n{chance.randrange(12)}"
    match chance.randrange(9):
        case 0 | 1:
            if not os.path.lexists(place):
                place.write_text(str(chance.random()))
        case 2 if files:
            chance.choice(files).write_text(str(chance.random()))
        case 3:
            if not os.path.lexists(place):
                (place / "deep").mkdir(parents=True)
                (place / "deep" / "f").write_text(str(chance.random()))
        case 4 if entries:
            moved = chance.choice(entries)
            inside = str(place).startswith(f"{moved}/") or place == moved
            if not inside and not os.path.lexists(place):
                moved.rename(place)
        case 5 if entries:
            _remove(chance.choice(entries))
        case 6 if files:
            # As editors save.
            saved = chance.choice(files)
            saved.with_name("saved~").write_text(str(chance.random()))
            saved.with_name("saved~").replace(saved)
        case 7:
            if not os.path.lexists(place):
                place.symlink_to(f"n{chance.randrange(12)}")
        case 8 if files:
            chance.choice(files).chmod(chance.choice((0o644, 0o755, 0o600)))


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    copy = Copy(source, target)
    yield source, target
    copy.close()


@pytest.mark.parametrize("seed", range(6))
def test_random_changes_end_up_the_same(trees: tuple[Path, Path], seed: int) -> None:
    source, target = trees
    chance = random.Random(seed)
    for _ in range(OPERATIONS):
        _disturb(source, chance)
        if chance.random() < 0.02:
            time.sleep(0.04)  # now and then long enough for a batch to end in between

    deadline = time.monotonic() + 60
    while _content_or_nothing(target) != _content(source):
        assert time.monotonic() < deadline, set(_content(source)) ^ set(_content(target))
        time.sleep(0.02)


def _content_or_nothing(tree: Path) -> dict[str, tuple[int, str]] | None:
    """None while it is being changed."""
    try:
        return _content(tree)
    except OSError:
        return None
