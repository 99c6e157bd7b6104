"""Log files as people read them: merged by time, prefixed, coloured, followed.

The runtime keeps a container's output as JSON lines (`{"log", "stream", "time"}`, Docker's
json-file), the live file at `log_path`, older ones at `log_path.1`, `.2`, …. They are read
here directly, so that output can be read while the daemon is being restarted.
"""

from __future__ import annotations

import heapq
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.cli.errors import UsageError
from orchestrator.cli.session import Session

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # compose's order: cyan, yellow, green, …
_BLOCK = 64 * 1024
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Key = tuple[str, str]


def time_key(stamp: str) -> Key:
    """An RFC 3339 time in UTC as something that sorts, whatever its number of digits."""
    return stamp[:19], stamp[20:].rstrip("Z").ljust(9, "0")


def moment(text: str, now: float) -> Key:
    """A `--since` value as a key: RFC 3339, seconds since the epoch, or an age ("10m")."""
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(instant(text, now), UTC)
    return time_key(at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z")


def instant(text: str, now: float) -> float:
    """The same in seconds since the epoch."""
    from datetime import datetime

    try:
        if text[-1:] in _UNITS:
            return now - _age(text)
        if text.replace(".", "", 1).isdigit():
            return float(text)
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(f"{text} is neither a time nor an age such as 10m") from None


def _age(text: str) -> float:
    """Go's durations in hours, minutes and seconds ("1h30m")."""
    total, digits = 0.0, ""
    for letter in text:
        if letter in _UNITS:
            total, digits = total + float(digits) * _UNITS[letter], ""
        else:
            digits += letter
    return total


class Window:
    """Which lines are wanted: the last `tail` of each container, from `since` up to `until`."""

    __slots__ = ("since", "tail", "until")

    def __init__(
        self, *, tail: int | None = None, since: Key | None = None, until: Key | None = None
    ) -> None:
        self.tail = tail
        self.since = since
        self.until = until

    def holds(self, key: Key) -> bool:
        return (self.since is None or key >= self.since) and (
            self.until is None or key < self.until
        )


class Entry:
    """One line of a log file."""

    __slots__ = ("key", "name", "stamp", "stream", "text")

    def __init__(self, name: str, fields: dict[str, str]) -> None:
        self.name = name
        self.stamp = fields["time"]
        self.key = time_key(self.stamp)
        self.stream = fields["stream"]
        self.text = fields["log"]

    def __lt__(self, other: Entry) -> bool:
        return self.key < other.key


class Source:
    """The log files of one container, read once up to now and then as they grow."""

    def __init__(self, container: dict[str, Any]) -> None:
        self.name = str(container["name"])
        self.path = str(container["log_path"])
        self._file: int | None = None
        self._pending = b""

    def past(self, window: Window) -> Iterator[Entry]:
        """What there is now, oldest first; `new` goes on from there."""
        raw = b"".join(_content(path) for path in self._older(window))
        raw += b"".join(iter(self._read, b""))
        *lines, self._pending = raw.split(b"\n")
        if window.tail is not None:
            lines = lines[len(lines) - min(window.tail, len(lines)) :]
        return (entry for entry in self._entries(lines) if window.holds(entry.key))

    def new(self) -> Iterator[Entry]:
        """What was added since the last call, across a change of files."""
        while True:
            piece = self._read()
            if not piece:
                if not self._replaced():
                    return
                self.close()
                continue
            *lines, self._pending = (self._pending + piece).split(b"\n")
            yield from self._entries(lines)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _entries(self, lines: list[bytes]) -> Iterator[Entry]:
        for line in lines:
            try:
                entry = Entry(self.name, json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue  # torn: its writer was killed, or the disk was full
            yield entry

    def _older(self, window: Window) -> list[str]:
        number, paths = 1, []
        while os.path.exists(f"{self.path}.{number}"):
            paths.append(f"{self.path}.{number}")
            number += 1
        if window.tail is not None and _lines_at_least(self.path, window.tail):
            return []
        return paths[::-1]

    def _read(self) -> bytes:
        if self._file is None:
            try:
                self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return b""
        return os.read(self._file, _BLOCK)

    def _replaced(self) -> bool:
        if self._file is None:
            return False
        try:
            return os.stat(self.path).st_ino != os.fstat(self._file).st_ino
        except FileNotFoundError:
            return False


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _lines_at_least(path: str, count: int) -> bool:
    return _content(path).count(b"\n") >= count


class Printer:
    """Writes entries: prefix in the container's colour, time where wanted, stderr to stderr."""

    def __init__(self, *, prefix: bool, colour: bool, timestamps: bool) -> None:
        self._prefix = prefix
        self._colour = colour
        self._timestamps = timestamps
        self._heads: dict[str, str] = {}
        self._names: list[str] = []
        self._open: dict[tuple[str, str], str] = {}

    def know(self, names: Iterable[str]) -> None:
        """The containers to expect: the widest name decides the width of the prefix."""
        self._names += [name for name in names if name not in self._names]
        width = max((len(label(name)) for name in self._names), default=0)
        for index, name in enumerate(self._names):
            head = f"{label(name).ljust(width)}  | " if self._prefix else ""
            if self._colour and head:
                head = f"\x1b[{_COLOURS[index % len(_COLOURS)]}m{head}\x1b[0m"
            self._heads[name] = head

    def write(self, entry: Entry) -> None:
        place = (entry.name, entry.stream)
        text = self._open.pop(place, "") + entry.text
        if not text.endswith("\n"):
            self._open[place] = text
            return
        self._line(entry.name, entry.stream, text, entry.stamp)

    def note(self, name: str, text: str) -> None:
        """A remark of our own about a container."""
        print(f"{label(name)} {text}", file=sys.stdout, flush=True)

    def flush(self) -> None:
        sys.stdout.flush()

    def end(self) -> None:
        """Write what has no line end yet."""
        for (name, stream), text in self._open.items():
            self._line(name, stream, text + "\n", "")
        self._open.clear()
        sys.stdout.flush()

    def _line(self, name: str, stream: str, text: str, stamp: str) -> None:
        out = sys.stderr if stream == "stderr" else sys.stdout
        head = self._heads.get(name, "")
        if self._timestamps:
            head += f"{stamp} "
        out.write(head + text)


def label(name: str) -> str:
    """`guestbook-web-1` as `web-1`, as Compose prints it; other names as they are."""
    first, dash, rest = name.partition("-")
    return rest if dash and rest.rpartition("-")[2].isdigit() and "-" in rest else name or first


def chosen(
    session: Session, project: str, services: tuple[str, ...], index: float | None = None
) -> list[dict[str, Any]]:
    """The project's containers, of `services` where given; unknown services are an error, and
    so is an `index` that the one service does not have."""
    if index is not None and len(services) != 1:
        raise UsageError("--index needs exactly one service")
    found = session.client.get(session.project_path("containers", project), all=1)
    known = {container["service"] for container in found}
    for service in services:
        if service not in known:
            raise UsageError(f"no such service, or no container of it: {service}")
    wanted = narrowed(found, services, index)
    if index is not None and not wanted:
        raise UsageError(f"service {services[0]} has no container number {index:g}")
    return wanted


def narrowed(
    containers: list[dict[str, Any]], services: tuple[str, ...], index: float | None
) -> list[dict[str, Any]]:
    """Those of `services` (empty: of all), and with number `index` where one is given."""
    return [
        container
        for container in containers
        if (not services or container["service"] in services)
        and (index is None or (container["number"] == index and not container.get("oneoff")))
    ]


def show(sources: list[Source], window: Window, printer: Printer) -> None:
    """Everything up to now, all containers merged by time."""
    for entry in heapq.merge(*(source.past(window) for source in sources)):
        printer.write(entry)
    printer.end()
