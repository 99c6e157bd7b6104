"""Who may change what, among threads and processes.

Three kinds, always taken in this order:
- a sandbox's, for as long as its namespace and links are being made or taken down;
- the instance's, for a decision: reading and writing the database, and what must go with it;
- the rules', while the packet filter is made to be what the database calls for.

What takes the kernel long is done under the first alone, so that many sandboxes are made at
a time. Whoever holds the instance's lock may only try a sandbox's, never wait for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from runtime.linux.files import locked


class Locks:
    """The locks of one instance, as files below its runtime directory."""

    def __init__(self, run: Path) -> None:
        self._instance = _Reentrant(run / "networks.lock")
        self._rules = _Reentrant(run / "rules.lock")
        self._sandboxes = run / "sandboxes.lock"

    def instance(self) -> contextlib.AbstractContextManager[None]:
        return self._instance.hold()

    def rules(self) -> contextlib.AbstractContextManager[None]:
        return self._rules.hold()

    @contextlib.contextmanager
    def sandbox(self, sandbox_id: str) -> Iterator[None]:
        """Not to be taken twice by the same thread."""
        with self._open() as fd:
            _lock(fd, fcntl.F_OFD_SETLKW, _place(sandbox_id))
            yield

    @contextlib.contextmanager
    def try_sandbox(self, sandbox_id: str) -> Iterator[bool]:
        """Whether it could be had; held meanwhile."""
        with self._open() as fd:
            try:
                _lock(fd, fcntl.F_OFD_SETLK, _place(sandbox_id))
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        fd = os.open(self._sandboxes, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)  # which unlocks


class _Reentrant:
    """A lock among threads and processes that its holder may take again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.RLock()
        self._depth = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        with self._threads, contextlib.ExitStack() as stack:
            if not self._depth:
                stack.enter_context(locked(self._path))
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1


def _place(sandbox_id: str) -> int:
    """The byte of the file that stands for a sandbox; two on the same one wait for each other."""
    digest = hashlib.sha256(sandbox_id.encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _lock(fd: int, command: int, place: int) -> None:
    """An open file description lock (fcntl(2)) on one byte."""
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    fcntl.fcntl(fd, command, request)
