"""The output of a container, kept as Docker keeps it: one JSON object a line.

`{"log": "text\\n", "stream": "stdout", "time": "2026-01-02T03:04:05.000000006Z"}`. Lines over
16 KiB are split; the parts but the last have no newline. Files rotate by size: `container.log`
is the live one, `container.log.1` the one before.
"""

from __future__ import annotations

import contextlib
import os
import time
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

LOG_NAME = "container.log"
LONGEST_LINE = 16 * 1024


def timestamp(ns: int) -> str:
    """RFC 3339 with nanoseconds, in UTC."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"


class Limits(Protocol):
    """What of a LogConfig counts here."""

    @property
    def driver(self) -> str: ...

    @property
    def max_size(self) -> int: ...

    @property
    def max_files(self) -> int: ...


class LogWriter:
    """Appends to the log of one container; full files are renamed away."""

    def __init__(self, directory: Path | str, config: Limits) -> None:
        self._path = f"{directory}/{LOG_NAME}"
        self._config = config
        self._partial: dict[str, bytes] = {}
        self._torn = False
        self._fd = self._open(self._path)
        self._size = os.fstat(self._fd).st_size
        self._end_torn_line()

    def _open(self, path: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(path, flags, 0o640)

    def _end_torn_line(self) -> None:
        """A writer that was killed may have left half a line; the next one must stand alone."""
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._torn = True

    def write(self, stream: str, chunk: bytes) -> None:
        """Keep `chunk` of `stream` ("stdout", "stderr"); an unfinished line waits for its end."""
        text = self._partial.pop(stream, b"") + chunk
        lines = text.split(b"\n")
        rest = lines.pop()
        entries = [line + b"\n" for line in lines]
        if len(rest) >= LONGEST_LINE:
            *pieces, rest = _pieces(rest)
            entries += pieces
        if rest:
            self._partial[stream] = rest
        if entries:
            self._append(stream, entries)

    def close(self) -> None:
        if self._fd < 0:
            return
        for stream, rest in self._partial.items():
            self._append(stream, [rest])
        self._partial.clear()
        os.close(self._fd)
        self._fd = -1

    def _append(self, stream: str, entries: list[bytes]) -> None:
        if self._config.driver == "none":
            return
        now = timestamp(time.time_ns())
        batch: list[bytes] = []
        size = 0
        for entry in entries:
            for part in _pieces(entry):
                line = _encode(part, stream, now)
                if self._size + size and self._size + size + len(line) > self._config.max_size:
                    self._put(b"".join(batch))
                    self._rotate()
                    batch, size = [], 0
                batch.append(line)
                size += len(line)
        self._put(b"".join(batch))

    def _put(self, raw: bytes) -> None:
        if self._torn and raw:
            raw = b"\n" + raw
        written = _write_all(self._fd, raw)
        self._size += written
        if written:
            self._torn = raw[written - 1 : written] != b"\n"

    def _rotate(self) -> None:
        """Where a full disk has no room for a new file, the old one goes on."""
        last = self._config.max_files - 1
        try:
            # Made before the old one is moved away, as there may be no room for it.
            fresh = f"{os.path.dirname(self._path)}/.{LOG_NAME}.new"
            fd = self._open(fresh)
            for number in range(last, 0, -1):
                newer = f"{self._path}.{number - 1}" if number > 1 else self._path
                with contextlib.suppress(FileNotFoundError):
                    os.replace(newer, f"{self._path}.{number}")
            os.replace(fresh, self._path)
        except OSError:
            return
        os.close(self._fd)
        self._fd = fd
        self._size = 0
        self._torn = False


def _encode(part: bytes, stream: str, time: str) -> bytes:
    text = encode_basestring(part.decode(errors="replace"))
    return f'{{"log":{text},"stream":"{stream}","time":"{time}"}}\n'.encode()


def _pieces(entry: bytes) -> list[bytes]:
    """`entry` in parts of at most LONGEST_LINE bytes, none of which ends within a character."""
    pieces = []
    while len(entry) > LONGEST_LINE:
        end = LONGEST_LINE
        # Continuation bytes of UTF-8 are 10xxxxxx, at most three in a row.
        while end > LONGEST_LINE - 3 and entry[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(entry[:end])
        entry = entry[end:]
    return [*pieces, entry]


def _write_all(fd: int, raw: bytes) -> int:
    """Write all of `raw`; a full disk loses the output but must not end the container."""
    written = 0
    while written < len(raw):
        try:
            written += os.write(fd, raw[written:])
        except OSError:
            break
    return written
