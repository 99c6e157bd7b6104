"""Waits for changes of the watched trees, and gives them batch by batch.

A batch ends once nothing has changed for 30 ms, or after 300 ms; where a great many files change
(a checkout of another branch) it is given longer, so that it stays one. Where directories cannot
be watched, because of a limit or by the person's wish, everything is looked at once a second.

Of watchfiles, which would do the waiting, three things were measured that rule it out: of 60,000
changes that overflowed the kernel's queue it reported 36,755 and said nothing of the rest; one
directory that may not be read makes it watch nothing of the tree; and where it polls it sees times
in whole seconds, so that of 20 saves in 5 seconds it reported 6.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.engine.trees import DirectoryWatches, WatchLimit
from orchestrator.watch.forest import Change, Forest

QUIET = 0.03  # seconds without a change that end a batch
LONGEST = 0.3  # seconds after which it ends in any case
MANY = 200  # paths that make it one of those that are given longer
LONGEST_OF_MANY = 3.0
INTERVAL = 1.0  # seconds between two looks where nothing tells of changes


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that came together; `since` is when the first of them was noticed (seconds,
    monotonic clock)."""

    changes: tuple[Change, ...]
    since: float


class Watching:
    """The trees below some roots. `wake` and `stop` may be called from any thread, all else from
    the one that waits."""

    def __init__(self, warn: Callable[[str], None], *, poll: bool = False) -> None:
        self._warn = warn
        self._stopped = threading.Event()
        self._polls = threading.Event()
        self._watches: DirectoryWatches | None = None
        self._made: DirectoryWatches | None = None
        if not poll:
            try:
                self._watches = self._made = DirectoryWatches()
            except WatchLimit as exc:
                self._give_up(exc)
        self._forest = Forest(self, warn)
        self._left_over: list[Change] = []

    # --- what the forest asks for ------------------------------------------------------------

    def enter(self, directory: str) -> None:
        if self._watches is not None:
            try:
                self._watches.enter(directory)
            except WatchLimit as exc:
                self._give_up(exc)

    def holds(self, directory: str) -> bool:
        return self._watches is None or self._watches.holds(directory)

    def leave(self, directory: str) -> None:
        if self._watches is not None:
            self._watches.leave(directory)

    def _give_up(self, error: WatchLimit) -> None:
        setting = Path(error.setting)
        self._warn(
            f"no more directories can be watched (fs.inotify.{setting.name} is "
            f"{setting.read_text().strip()}): files are looked at every {INTERVAL:g} s instead; "
            f"sysctl -w fs.inotify.{setting.name}=… raises the limit"
        )
        if self._watches is not None:
            self._watches.release()
            self._watches = None

    # --- batches ------------------------------------------------------------------------------

    def plant(self, roots: Iterable[str], wanted: Callable[[str, bool], bool]) -> None:
        """Follow these roots from now on; what else has changed meanwhile is in the next batch."""
        self._left_over += self._forest.plant(roots, wanted)

    def next(self) -> Batch | None:
        """Wait for changes; None once `stop` was called, and an empty batch after `wake`."""
        if self._stopped.is_set():
            return None
        if self._left_over:
            changes, self._left_over = self._left_over, []
            return Batch(tuple(changes), time.monotonic())
        if self._watches is None:
            self._polls.wait(INTERVAL)
            self._polls.clear()
            if self._stopped.is_set():
                return None
            since = time.monotonic()
            return Batch(tuple(self._forest.rescan()), since)
        return self._collect(self._watches)

    def _collect(self, watches: DirectoryWatches) -> Batch | None:
        paths, lost = watches.gather(None)
        since = last = time.monotonic()
        found = {path for path in paths if self._forest.concerns(path)}
        while (found or lost) and not self._stopped.is_set():
            now = time.monotonic()
            longest = LONGEST if len(found) < MANY and not lost else LONGEST_OF_MANY
            wait = min(last + QUIET, since + longest) - now
            if wait <= 0:
                break
            paths, overflowed = watches.gather(wait)
            lost |= overflowed
            new = {path for path in paths if path in found or self._forest.concerns(path)}
            if new or overflowed:
                last = time.monotonic()
                found |= new
        if self._stopped.is_set():
            return None
        if lost:
            self._warn("changes came faster than they could be read; all files are looked at again")
            return Batch(tuple(self._forest.rescan()), since)
        return Batch(tuple(self._forest.refresh(found)), since)

    def wake(self) -> None:
        """Have `next` return."""
        self._polls.set()
        if self._made is not None:
            self._made.wake()

    def stop(self) -> None:
        self._stopped.set()
        self.wake()

    def close(self) -> None:
        """Nobody may call `wake` or `stop` any more."""
        if self._watches is not None:
            self._watches.release()
            self._watches = None
        if self._made is not None:
            self._made.close()
            self._made = None
