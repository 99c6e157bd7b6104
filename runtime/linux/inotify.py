"""File events: inotify(7)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from runtime.linux import libc

IN_MODIFY = 0x002
IN_ATTRIB = 0x004
IN_CLOSE_WRITE = 0x008
IN_MOVED_FROM = 0x040
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
IN_DONT_FOLLOW = 0x2000000
IN_EXCL_UNLINK = 0x4000000

_EVENT = struct.Struct("iIII")


@dataclass(frozen=True, slots=True)
class Event:
    watch: int
    mask: int
    name: str


class Inotify:
    """One inotify instance; its descriptor is non-blocking and can be put into a selector."""

    def __init__(self) -> None:
        self._fd = libc.check(
            libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK),
            "inotify_init1",
        )

    def fileno(self) -> int:
        return self._fd

    def add(self, path: str | os.PathLike[str], mask: int) -> int:
        raw = os.fsencode(path)
        return libc.check(libc.inotify_add_watch(self._fd, raw, mask), "inotify_add_watch", raw)

    def remove(self, watch: int) -> None:
        libc.check(libc.inotify_rm_watch(self._fd, watch), "inotify_rm_watch")

    def read(self) -> list[Event]:
        """The events that wait, an empty list when none does."""
        try:
            buffer = os.read(self._fd, 65536)
        except BlockingIOError:
            return []
        events = []
        offset = 0
        while offset < len(buffer):
            watch, mask, _cookie, length = _EVENT.unpack_from(buffer, offset)
            offset += _EVENT.size
            name = os.fsdecode(buffer[offset : offset + length].rstrip(b"\0"))
            offset += length
            events.append(Event(watch, mask, name))
        return events

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
