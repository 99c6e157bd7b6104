"""Leases: what is being made, and what it must keep, while it is not yet part of an image.

A lease is a directory under `ingest/` whose file `lock` is held by flock(2) as long as its
owner lives. New content is written there and renamed to its place; the file `kept` lists
the digests that a garbage collection must leave alone. What a dead owner left is swept.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from runtime.linux.files import locked, try_lock
from runtime.removal import discard


class Lease:
    """A place for unfinished content. Threads may share it."""

    def __init__(self, directory: Path, collection: Path) -> None:
        self.directory = directory
        self._collection = collection
        self._next = 0
        self._mutex = threading.Lock()

    def path(self, purpose: str) -> Path:
        """A new name in the lease's directory."""
        with self._mutex:
            self._next += 1
            return self.directory / f"{self._next}-{purpose}"

    @contextlib.contextmanager
    def publishing(self, digest: str) -> Iterator[None]:
        """Keep `digest` from being collected; no collection marks or sweeps meanwhile."""
        with locked(self._collection, shared=True):
            with self._mutex, open(self.directory / "kept", "a", encoding="ascii") as kept:
                kept.write(digest + "\n")
            yield


class Leases:
    """All leases of a store."""

    def __init__(self, directory: Path, locks: Path) -> None:
        self._directory = directory
        self._guard = locks / "leases"
        self.collection = locks / "collection"

    @contextlib.contextmanager
    def open(self) -> Iterator[Lease]:
        """A lease for the length of a `with` block."""
        directory = self._directory / secrets.token_hex(8)
        with locked(self._guard, shared=True):
            directory.mkdir(mode=0o700)
            held = try_lock(directory / "lock")
            assert held is not None, "a new file cannot be locked by somebody else"
        try:
            yield Lease(directory, self.collection)
        finally:
            discard(directory)
            os.close(held)

    def kept(self) -> set[str]:
        """The digests that live leases keep; call it with the collection's lock held."""
        digests: set[str] = set()
        for directory in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                digests.update((directory / "kept").read_text(encoding="ascii").split())
        return digests

    def sweep(self) -> int:
        """Remove what dead owners left; the number of leases removed."""
        removed = 0
        if not any(self._directory.iterdir()):
            return 0
        with locked(self._guard):
            for directory in self._directory.iterdir():
                try:
                    held = try_lock(directory / "lock")
                except FileNotFoundError:
                    continue  # its owner has just finished
                if held is None:
                    continue
                try:
                    discard(directory)
                    removed += 1
                finally:
                    os.close(held)
        return removed
