"""Reads and follows what `logs.LogWriter` has written, through rotation, without polling."""

from __future__ import annotations

import json
import os
import select
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
    everything = (entry for file in _files(path) for entry in _entries(file))
    entries = _within(everything, since, until)
    return iter(deque(entries, maxlen=tail)) if tail is not None else entries


def _files(path: Path) -> list[Path]:
    """The rotated files, oldest first, then the live one."""
    numbered = []
    for file in path.parent.glob(f"{LOG_NAME}.*"):
        number = file.name.rpartition(".")[2]
        if number.isdigit():
            numbered.append((int(number), file))
    return [file for _number, file in sorted(numbered, reverse=True)] + [path]


def _entries(path: Path) -> Iterator[LogEntry]:
    try:
        with path.open("rb") as file:
            for line in file:
                entry = parse_line(line)
                if entry is not None:
                    yield entry
    except FileNotFoundError:
        return


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
            inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_DELETE_SELF,
        )
        self._rest = b""
        self._file = -1
        self._open()
        if not from_start and self._file >= 0:
            os.lseek(self._file, 0, os.SEEK_END)

    def fileno(self) -> int:
        return self._notify.fileno()

    def read(self) -> list[LogEntry]:
        """What has come since the last call; never blocks."""
        self._notify.read()
        entries = self._drain()
        while self._rotated():
            self._open()
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

    def _open(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._file = -1
        self._rest = b""

    def _rotated(self) -> bool:
        """Whether the name now stands for another file than the one that is open."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        return self._file < 0 or not os.path.samestat(now, os.fstat(self._file))

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
