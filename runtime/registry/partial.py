"""Blobs that are being downloaded: one file each, locked by who writes it, kept by a crash.

`<store>/partial/<algorithm>-<hex>` holds the beginning of a blob. Its flock(2) makes one
process (and one task of a process) do the work when several want the same blob; the lock
follows the file when it is renamed to its place, so who waited finds the name gone and looks
for the blob. The beginning that a broken or killed pull leaves is taken up by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import io
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

from runtime.errors import ImageError
from runtime.images.blobs import Blobs
from runtime.images.leases import Lease
from runtime.linux.files import begin_writing, sync_directory, try_lock
from runtime.oci.descriptor import Descriptor
from runtime.oci.digest import algorithm, check_digest, encoded
from runtime.registry.transfer import PIECE

_KEPT_SECONDS = 7 * 24 * 3600


class Partial:
    """A locked, unfinished blob. Its methods block and belong into worker threads."""

    def __init__(self, path: Path, file: io.FileIO, descriptor: Descriptor) -> None:
        self.path = path
        self._file = file
        self._descriptor = descriptor
        self.offset = 0
        self.resumed = False
        self.restart()

    def take_up(self) -> None:
        """Go on after what an earlier attempt left."""
        size = os.fstat(self._file.fileno()).st_size
        if not 0 < size <= self._descriptor.size:
            self.restart()
            return
        self._file.seek(0)
        self._hash = hashlib.new(algorithm(self._descriptor.digest))
        while piece := self._file.read(PIECE):
            self._hash.update(piece)
        self.offset = self._file.tell()
        self.resumed = True

    def restart(self) -> None:
        """Forget what is there."""
        self._hash = hashlib.new(algorithm(self._descriptor.digest))
        self.offset = 0
        self.resumed = False

    def write(self, piece: bytes) -> None:
        """Append; raises ImageError as soon as there is more than the descriptor says."""
        if self.offset == 0:
            self._file.seek(0)
            self._file.truncate()
        if self.offset + len(piece) > self._descriptor.size:
            raise ImageError(
                f"blob {self._descriptor.digest} is longer than the "
                f"{self._descriptor.size} bytes that its manifest gives"
            )
        self._hash.update(piece)
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]
        before, self.offset = self.offset, self.offset + len(piece)
        begin_writing(self._file.fileno(), before, self.offset)

    @property
    def complete(self) -> bool:
        return self.offset == self._descriptor.size

    def is_right(self) -> bool:
        return self.complete and self._hash.hexdigest() == encoded(self._descriptor.digest)

    def finished(self) -> Path:
        """The file, verified and durable; raises ImageError where it is another blob."""
        if not self.is_right():
            self.discard()
            raise ImageError(
                f"what was sent as blob {self._descriptor.digest} "
                f"({self.offset} of {self._descriptor.size} bytes) is something else"
            )
        if self._descriptor.size == 0:
            self._file.truncate(0)
        os.fsync(self._file.fileno())
        return self.path

    def publish(self, blobs: Blobs, lease: Lease) -> None:
        """Give the blob its place in the store; raises ImageError where it is another one."""
        path = self.finished()
        with lease.publishing(self._descriptor.digest):
            os.fchmod(self._file.fileno(), 0o644)
            target = blobs.path(self._descriptor.digest)
            os.rename(path, target)
            sync_directory(target.parent)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


class Partials:
    """The unfinished blobs of the store under `root`."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "partial"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        check_digest(digest)
        return self._directory / f"{algorithm(digest)}-{encoded(digest)}"

    @contextlib.asynccontextmanager
    async def hold(self, descriptor: Descriptor) -> AsyncIterator[Partial]:
        """The unfinished blob, ours alone; waits while another process writes it."""
        path = self.path(descriptor.digest)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            file = open(fd, "r+b", buffering=0)  # noqa: SIM115 - closed on all ways below
            try:
                await lock(fd)
                try:
                    current = os.path.samestat(os.fstat(fd), os.stat(path))
                except FileNotFoundError:
                    current = False
                if not current:
                    continue
                yield Partial(path, file, descriptor)
                if os.fstat(fd).st_size == 0:
                    with contextlib.suppress(FileNotFoundError):
                        if os.path.samestat(os.fstat(fd), os.stat(path)):
                            os.unlink(path)
                return
            finally:
                file.close()

    def sweep(self, now: float | None = None) -> int:
        """Remove what nobody has taken up for a week; the number of files."""
        oldest = (time.time() if now is None else now) - _KEPT_SECONDS
        removed = 0
        for entry in list(os.scandir(self._directory)):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime >= oldest:
                    continue
                held = try_lock(entry.path)
                if held is None:
                    continue
                try:
                    os.unlink(entry.path)
                    removed += 1
                finally:
                    os.close(held)
        return removed


async def lock(fd: int) -> None:
    """Take an exclusive flock(2), waiting without holding up the loop; can be cancelled.

    A thread waits in the kernel; when the caller is gone by the time that it has the lock,
    its own descriptor of the same open file gives it back.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    loop = asyncio.get_running_loop()
    taken: asyncio.Future[None] = loop.create_future()
    # The caller closes its descriptor when cancelled; the thread needs one that stays.
    own = os.dup(fd)

    def finish(error: OSError | None) -> None:
        if taken.done():
            return
        if error is None:
            taken.set_result(None)
        else:
            taken.set_exception(error)

    def wait() -> None:
        error: OSError | None = None
        try:
            fcntl.flock(own, fcntl.LOCK_EX)
        except OSError as exc:
            error = exc
        finally:
            os.close(own)
        with contextlib.suppress(RuntimeError):  # the loop is closed: so is the caller's file
            loop.call_soon_threadsafe(finish, error)

    # Not a pool's thread: the interpreter would wait for it at its end.
    threading.Thread(target=wait, name="flock", daemon=True).start()
    await taken
