"""Batches of changes, from real directories."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.engine.trees import DirectoryWatches, WatchLimit
from orchestrator.watch import watching
from orchestrator.watch.watching import Batch, Watching


class Watcher:
    """A watching whose batches a thread takes; `warnings` is what it says."""

    def __init__(self, *roots: Path, poll: bool = False) -> None:
        self.warnings: list[str] = []
        self.watching = Watching(self.warnings.append, poll=poll)
        self.watching.plant(map(str, roots), lambda path, directory: True)

    def next(self) -> Batch:
        """The next batch that holds anything."""
        while True:
            batch = self.watching.next()
            assert batch is not None
            if batch.changes:
                return batch

    def names(self, count: int) -> set[str]:
        """The names of the next `count` changed paths, in however many batches."""
        found: set[str] = set()
        while len(found) < count:
            found |= {Path(change.path).name for change in self.next().changes}
        return found


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[Watcher]:
    made = Watcher(tmp_path)
    yield made
    made.watching.close()


def test_a_saved_file_is_a_batch(watcher: Watcher, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")

    assert [change.path for change in watcher.next().changes] == [f"{tmp_path}/a.txt"]


def test_nothing_is_missed_below_directories_that_are_new(watcher: Watcher, tmp_path: Path) -> None:
    for number in range(50):
        deep = tmp_path / f"d{number}" / "e" / "f"
        deep.mkdir(parents=True)
        (deep / f"{number}.txt").write_text("x")

    assert {f"{number}.txt" for number in range(50)} <= watcher.names(50 * 2 + 2)


def test_the_watch_of_a_renamed_directory_goes_by_its_new_name(
    watcher: Watcher, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    watcher.names(1)
    (tmp_path / "old").rename(tmp_path / "new")
    watcher.names(2)
    (tmp_path / "new" / "a.txt").write_text("a")

    assert [change.path for change in watcher.next().changes] == [f"{tmp_path}/new/a.txt"]


def test_changes_that_were_lost_are_found_and_said_aloud(watcher: Watcher, tmp_path: Path) -> None:
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queue > 100_000:
        pytest.skip("the kernel's queue is too long to be filled here")
    (tmp_path / "gone").mkdir()
    watcher.names(1)
    (tmp_path / "gone").rmdir()
    for number in range(queue // 2 + 100):
        (tmp_path / f"{number}.txt").touch()  # two events

    found = watcher.names(queue // 2 + 101)

    assert "gone" in found
    assert watcher.warnings == [
        "changes came faster than they could be read; all files are looked at again"
    ]
    (tmp_path / "after.txt").write_text("x")
    assert watcher.names(1) == {"after.txt"}


@pytest.mark.parametrize("at_once", [True, False])
def test_the_limit_of_watches_is_said_aloud_and_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    limit = 0 if at_once else 2
    enter = DirectoryWatches.enter

    def limited(self: DirectoryWatches, directory: str) -> None:
        if len(self) >= limit:
            raise WatchLimit("/proc/sys/fs/inotify/max_user_watches")
        enter(self, directory)

    monkeypatch.setattr(DirectoryWatches, "enter", limited)
    monkeypatch.setattr(watching, "INTERVAL", 0.05)
    (tmp_path / "deep").mkdir()
    watcher = Watcher(tmp_path)
    try:
        (tmp_path / "deep" / "a.txt").write_text("a")
        assert "a.txt" in watcher.names(1)
        (warning,) = watcher.warnings
        assert "fs.inotify.max_user_watches" in warning
        assert "are looked at every" in warning
    finally:
        watcher.watching.close()


def test_files_are_looked_at_where_a_person_wants_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.05)
    watcher = Watcher(tmp_path, poll=True)
    # Twice within a second: times are compared to the nanosecond.
    for text in ("a", "b"):
        (tmp_path / "a.txt").write_text(text)
        assert watcher.names(1) == {"a.txt"}
    watcher.watching.close()


@pytest.mark.parametrize("poll", [True, False])
def test_stopping_ends_the_wait(tmp_path: Path, poll: bool) -> None:
    watcher = Watcher(tmp_path, poll=poll)
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(watcher.watching.next()))
    thread.start()
    watcher.watching.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert taken[0] is None or taken[0] == Batch((), taken[0].since)  # type: ignore[attr-defined]
    watcher.watching.close()


def test_a_writer_that_never_pauses_does_not_hold_a_batch_up(
    watcher: Watcher, tmp_path: Path
) -> None:
    ended = threading.Event()

    def write() -> None:
        with (tmp_path / "log.txt").open("w") as file:
            while not ended.is_set():
                file.write("line\n")
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        (tmp_path / "a.txt").write_text("a")
        assert "a.txt" in watcher.names(2)
    finally:
        ended.set()
        writer.join()
