"""Brings changed files of the host into a container: what the dev loop writes.

Files are written from outside, by descriptors: the container needs no shell and no tar, may be
stopped, and may have its root for reading only. They belong to the user that it runs as, as with
Compose, whose files are unpacked by that user; unlike there, directories of another owner are no
hindrance.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.engine.errors import ContainerFull, ContainerGone
from runtime.container.init import resolve_identity
from runtime.container.mirror import TEMPORARY, Mirror
from runtime.container.tree import open_tree
from runtime.errors import FileRefused, NotFound

__all__ = ["TEMPORARY", "ContainerFiles", "Delete", "Put", "Synced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Make `target`, an absolute path in the container, like the host's `source`.

    A symbolic link is copied as one; a directory is made, without what is in it. Where the target
    is a link in the container, it gives way; links on the way to it are followed.
    """

    source: Path
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove `target` with all that is in it; that it is missing is no error.

    Where `source` is given and is there (again), nothing is removed.
    """

    target: str
    source: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """What has come of changes; `skipped` are paths (the target's) with the reason."""

    written: int = 0
    deleted: int = 0
    bytes: int = 0
    skipped: tuple[tuple[str, str], ...] = ()


class ContainerFiles:
    """The files of one container, whether it runs or not. Blocking; for one thread at a time.

    Nothing is held between two calls, so that it may be stopped, started and removed meanwhile; it
    is not while a call writes. `user` (default: the container's own) is Docker's
    `name|uid[:group|gid]`, by the container's own files.
    """

    def __init__(self, root: Path, run: Path, container_id: str, *, user: str | None = None):
        self._root = root
        self._run = run
        self._id = container_id
        self._user = user
        self._busy = threading.Lock()
        self._closed = threading.Event()

    def apply(self, changes: Sequence[Put | Delete]) -> Synced:
        """Make all changes in their order; each file is replaced in one step.

        What cannot be changed is skipped, with the reason. Raises ContainerGone, ContainerFull, and
        RuntimeFault where the files of the container cannot be reached.
        """
        written = deleted = size = 0
        skipped = []
        with self._mirror() as mirror:
            for change in changes:
                if self._closed.is_set():
                    break
                try:
                    if isinstance(change, Delete):
                        deleted += self._delete(mirror, change)
                    elif (count := mirror.put(os.fspath(change.source), change.target)) is not None:
                        written += 1
                        size += count
                except FileRefused as refused:
                    skipped.append((change.target, str(refused)))
                except OSError as error:
                    raise ContainerFull(self._id, change.target) from error
        return Synced(written=written, deleted=deleted, bytes=size, skipped=tuple(skipped))

    def differing(self, puts: Sequence[Put]) -> list[Put]:
        """Those that `apply` would change something for: kind, size, mode or content is another.

        What cannot be compared is among them, as `apply` says why. Raises as `apply`.
        """
        with self._mirror() as mirror:
            return [
                put
                for put in puts
                if not self._closed.is_set() and mirror.differs(os.fspath(put.source), put.target)
            ]

    def close(self) -> None:
        """Write no more; a call that is under way ends after the present file."""
        self._closed.set()

    def _delete(self, mirror: Mirror, change: Delete) -> bool:
        if change.source is not None and os.path.lexists(change.source):
            raise FileRefused("it is there again")
        return mirror.remove(change.target)

    @contextlib.contextmanager
    def _mirror(self) -> Iterator[Mirror]:
        with self._busy, contextlib.ExitStack() as held:
            try:
                tree = held.enter_context(open_tree(self._root, self._run, self._id, writing=True))
            except NotFound as error:
                raise ContainerGone(self._id) from error
            user = tree.config.user if self._user is None else self._user
            mirror = Mirror(tree.fd, resolve_identity(tree.fd, user, ()), running=tree.running)
            held.callback(mirror.close)
            yield mirror
