"""Reads and follows what `logs.LogWriter` has written, through rotation, without polling."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runtime.container.logs import LOG_NAME
from runtime.linux import inotify

_BLOCK = 256 * 1024


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A line of output; `time` is RFC 3339 with nanoseconds, in UTC, so that times sort as text."""

    time: str
    stream: str
    text: str


def read_log(
    path: Path, *, tail: int | None = None, since: str | None = None, until: str | None = None
) -> Iterator[LogEntry]:
    """The entries in order: all files, or the last `tail`, within `since` ≤ time < `until`."""
    if tail is None or since is not None or until is not None:
        entries = _within(_entries(path), since, until)
        return iter(deque(entries, maxlen=tail)) if tail is not None else entries
    return iter(_last(path, tail))


def _open_all(path: Path) -> list[BinaryIO]:
    """The rotated files, oldest first, then the live one.

    The newest is opened first: a rotation in between shows a file twice, but hides none. While
    names move, one of them may be missing for a moment.
    """
    opened: list[BinaryIO] = []
    seen = set()
    missing = 0
    for number in itertools.count():
        name = path.with_name(f"{LOG_NAME}.{number}") if number else path
        try:
            file = name.open("rb")
        except FileNotFoundError:
            missing += 1
            if missing > 1:
                break
            continue
        missing = 0
        status = os.fstat(file.fileno())
        if status.st_ino in seen:
            file.close()
            continue
        seen.add(status.st_ino)
        opened.append(file)
    return opened[::-1]


def _entries(path: Path) -> Iterator[LogEntry]:
    with contextlib.ExitStack() as stack:
        for file in [stack.enter_context(file) for file in _open_all(path)]:
            for line in file:
                entry = parse_line(line)
                if entry is not None:
                    yield entry


def _last(path: Path, wanted: int) -> list[LogEntry]:
    """The last `wanted` entries; only as many lines are parsed."""
    found: list[LogEntry] = []
    with contextlib.ExitStack() as stack:
        for file in reversed([stack.enter_context(file) for file in _open_all(path)]):
            if len(found) >= wanted:
                break
            for line in reversed(file.read().splitlines()):
                if len(found) >= wanted:
                    break
                entry = parse_line(line)
                if entry is not None:
                    found.append(entry)
    return found[::-1]


def parse_line(line: bytes) -> LogEntry | None:
    """None for a line that a killed writer or a full disk has left torn."""
    try:
        raw = json.loads(line)
        return LogEntry(raw["time"], raw["stream"], raw["log"])
    except (ValueError, KeyError, TypeError):
        return None


def _within(
    entries: Iterator[LogEntry], since: str | None, until: str | None
) -> Iterator[LogEntry]:
    for entry in entries:
        if since is not None and entry.time < since:
            continue
        if until is not None and entry.time >= until:
            continue
        yield entry


class LogFollower:
    """New entries of one container's log; `fileno` becomes readable when there may be some.

    It ends when the container's exit has been recorded and all has been read, or its directory
    has been removed.
    """

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        """Raises FileNotFoundError when the container's directory is gone."""
        self._path = path
        self._exit = path.with_name("exit.json")
        self._notify = inotify.Inotify()
        self._notify.add(
            path.parent,
            # A removal moves the directory away first: our open file keeps it from being deleted.
            inotify.IN_MODIFY
            | inotify.IN_CREATE
            | inotify.IN_MOVED_TO
            | inotify.IN_MOVE_SELF
            | inotify.IN_DELETE_SELF,
        )
        self._file = -1
        if from_start:
            self._open_oldest()
        else:
            self._open_newest()
            if self._file >= 0:
                os.lseek(self._file, 0, os.SEEK_END)

    def fileno(self) -> int:
        return self._notify.fileno()

    def read(self) -> list[LogEntry]:
        """What has come since the last call; never blocks."""
        self._notify.read()
        if self._file < 0:  # there was none: all that is there has come since
            self._open_oldest()
        entries = self._drain()
        while self._rotated():
            # What came before the rotation may have come after the last read.
            entries += self._drain()
            self._open_next()
            entries += self._drain()
        return entries

    def ended(self) -> bool:
        """Whether nothing more can come, for now: the container has exited."""
        return self._exit.exists() or not self._path.parent.exists()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until something may have come; False when `timeout` seconds have passed."""
        return bool(select.select([self._notify.fileno()], [], [], timeout)[0])

    def follow(self) -> Iterator[LogEntry]:
        """All entries until the container ends."""
        while True:
            over = self.ended()
            yield from self.read()
            if over:
                return
            self.wait()

    def close(self) -> None:
        self._notify.close()
        if self._file >= 0:
            os.close(self._file)

    def _open_oldest(self) -> None:
        """Go on with the first of what is left of the output."""
        files = _open_all(self._path)
        self._take(os.dup(files[0].fileno()) if files else -1)
        for file in files:
            file.close()

    def _open_newest(self) -> None:
        try:
            self._take(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            self._take(-1)

    def _take(self, fd: int) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = fd
        self._rest = b""

    def _open_next(self) -> None:
        """Go on with the file that follows the open one, which several rotations may have moved.

        Names move while we look, so what was found is only taken if it still holds afterwards.
        """
        while self._file >= 0 and os.fstat(self._file).st_nlink:
            name = self._name_of_open_file()
            if name is None:
                continue
            number = int(name.suffix[1:])
            newer = self._path.with_name(f"{LOG_NAME}.{number - 1}") if number > 1 else self._path
            try:
                following = os.open(newer, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if self._is_open_file(name):
                self._take(following)
                return
            os.close(following)
        self._open_oldest()  # ours has been rotated out of existence

    def _name_of_open_file(self) -> Path | None:
        """Its place among the rotated files."""
        numbered = self._path.parent.glob(f"{LOG_NAME}.[0-9]*")
        return next((name for name in numbered if self._is_open_file(name)), None)

    def _is_open_file(self, name: Path) -> bool:
        try:
            return self._file >= 0 and os.path.samestat(os.stat(name), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _rotated(self) -> bool:
        """Whether the name now stands for another file than the one that is open."""
        return self._path.exists() and not self._is_open_file(self._path)

    def _drain(self) -> list[LogEntry]:
        entries: list[LogEntry] = []
        while self._file >= 0 and (block := os.read(self._file, _BLOCK)):
            lines = (self._rest + block).split(b"\n")
            self._rest = lines.pop()
            entries += [entry for line in lines if (entry := parse_line(line)) is not None]
        return entries

    def __enter__(self) -> LogFollower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
