"""Uploads: blobs on their way, across requests, broken connections and restarts.

An upload is `uploads/<id>` (what has arrived) and `uploads/<id>.json` (whose it is). Bytes
are hashed as they arrive; after a restart what is there is hashed again. One request at a
time writes to an upload.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.linux.files import begin_writing, write_atomically
from runtime.oci.digest import algorithm, encoded
from runtime.registry.server.config import Limits
from runtime.registry.server.refusals import Code, Refusal, upload_unknown
from runtime.registry.server.storage import Storage
from runtime.registry.transfer import PIECE, drain, in_thread

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_IDLE = 60.0  # an empty upload that has waited so long makes place for another, in seconds
_LOOK_AGAIN = 1.0
_ID_BYTES = 16


class Upload:
    """One upload. `offset` is the number of bytes that have arrived.

    `hash` covers them, or is None for what an earlier process has received: that is hashed
    when the upload ends.
    """

    def __init__(self, identifier: str, repository: str, path: Path, kind: str, now: float) -> None:
        self.identifier = identifier
        self.repository = repository
        self.path = path
        self.algorithm = kind
        self.touched_at = now
        self.offset = 0
        self.lock = asyncio.Lock()
        self.hash: Hash | None = hashlib.new(kind)

    @property
    def range(self) -> str:
        """The `Range` header: first and last byte that are there ("0-0" also for none)."""
        return f"0-{max(0, self.offset - 1)}"


class Uploads:
    """All uploads of a storage; of one event loop."""

    def __init__(self, storage: Storage, limits: Limits) -> None:
        self._storage = storage
        self._limits = limits
        self._uploads: dict[str, Upload] = {}
        self._look_again_at = 0.0
        self.load()

    def __len__(self) -> int:
        return len(self._uploads)

    @property
    def largest(self) -> int:
        """The bytes that a blob may have."""
        return self._limits.blob

    def load(self) -> None:
        """Take up what an earlier process has left."""
        for entry in list(os.scandir(self._storage.uploads)):
            path = Path(entry.path)
            if path.suffix != ".json":
                if not path.with_name(path.name + ".json").exists():
                    path.unlink(missing_ok=True)
                continue
            data = path.with_suffix("")
            try:
                document = json.loads(path.read_bytes())
                repository, kind = str(document["repository"]), str(document["algorithm"])
                hashlib.new(kind)
                status = data.stat()
                upload = Upload(data.name, repository, data, kind, status.st_mtime)
                upload.offset, upload.hash = status.st_size, None
            except (OSError, ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
                data.unlink(missing_ok=True)
                continue
            self._uploads[upload.identifier] = upload

    async def open(self, repository: str, kind: str = "sha256") -> Upload:
        """Begin an upload; refused with 429 where there are too many."""
        now = self._storage.clock()
        if len(self._uploads) >= self._limits.uploads:
            idle = self._longest_idle(now)
            if idle is None:
                raise Refusal(
                    Code.TOOMANYREQUESTS,
                    429,
                    f"{len(self._uploads)} uploads are open",
                    headers={"Retry-After": "30"},
                )
            await self.drop(idle)
        identifier = secrets.token_hex(_ID_BYTES)
        path = self._storage.uploads / identifier
        upload = Upload(identifier, repository, path, kind, now)
        # In the table before the first await, so that the limit holds for all who come at once.
        self._uploads[identifier] = upload
        try:
            await in_thread(_create, path, {"repository": repository, "algorithm": kind})
        except BaseException:
            self._uploads.pop(identifier, None)
            raise
        return upload

    def _longest_idle(self, now: float) -> Upload | None:
        """The empty upload that has waited longest, None where none has waited long enough."""
        # Looking through all is dear when refusals come by the thousand.
        if now < self._look_again_at:
            return None
        idle = [
            upload
            for upload in self._uploads.values()
            if not upload.offset and not upload.lock.locked() and upload.touched_at < now - _IDLE
        ]
        if not idle:
            self._look_again_at = now + _LOOK_AGAIN
            return None
        return min(idle, key=lambda upload: upload.touched_at)

    def find(self, repository: str, identifier: str) -> Upload:
        """Raises the 404 that the specification wants."""
        upload = self._uploads.get(identifier)
        if upload is None or upload.repository != repository:
            raise upload_unknown()
        upload.touched_at = self._storage.clock()
        return upload

    @contextlib.asynccontextmanager
    async def alone(self, upload: Upload) -> AsyncIterator[None]:
        """Work on an upload; another request that writes to it meanwhile is refused."""
        if upload.lock.locked():
            raise self.out_of_order(upload, "another request writes to this upload")
        async with upload.lock:
            if self._uploads.get(upload.identifier) is not upload:
                raise upload_unknown()
            yield

    def out_of_order(self, upload: Upload, message: str) -> Refusal:
        return Refusal(Code.BLOB_UPLOAD_INVALID, 416, message, headers=self.headers(upload))

    def headers(self, upload: Upload) -> dict[str, str]:
        return {
            "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.identifier}",
            "Range": upload.range,
            "Docker-Upload-UUID": upload.identifier,
        }

    async def receive(self, upload: Upload, pieces: AsyncIterator[bytes]) -> int:
        """Append a body; what arrived before a connection broke stays."""
        free = (await in_thread(shutil.disk_usage, self._storage.uploads)).free
        allowed = self._limits.blob - upload.offset
        room = min(allowed, free - self._limits.minimum_free)

        async def bounded() -> AsyncIterator[bytes]:
            left = room
            async for piece in pieces:
                left -= len(piece)
                if left < 0:
                    raise self._too_large() if room == allowed else self._disk_full()
                yield piece

        def written(_length: int) -> None:
            upload.touched_at = self._storage.clock()

        with open(upload.path, "r+b", buffering=0) as file:
            file.seek(upload.offset)
            file.truncate()

            def write(piece: bytes) -> None:
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
                if upload.hash is not None:
                    upload.hash.update(piece)
                before, upload.offset = upload.offset, upload.offset + len(piece)
                begin_writing(file.fileno(), before, upload.offset)

            try:
                return await drain(bounded(), write, written=written)
            except OSError as exc:
                if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise self._disk_full() from exc

    def _too_large(self) -> Refusal:
        return Refusal(Code.SIZE_INVALID, 413, f"a blob may have {self._limits.blob} bytes at most")

    def _disk_full(self) -> Refusal:
        return Refusal(Code.DENIED, 507, "the registry's disk is full")

    async def finish(self, upload: Upload, digest: str) -> None:
        """Verify an upload and make it a blob; one that is something else is dropped."""
        right = await in_thread(_verify, upload, digest)
        if not right:
            await self.drop(upload)
            raise Refusal(
                Code.DIGEST_INVALID,
                400,
                "what was uploaded has another digest",
                detail={"digest": digest},
            )
        await in_thread(
            self._storage.add_blob, upload.repository, digest, upload.offset, upload.path
        )
        await self.drop(upload)

    async def drop(self, upload: Upload) -> None:
        """Forget an upload and its bytes."""
        self._uploads.pop(upload.identifier, None)
        await in_thread(_remove, upload.path)

    async def expire(self) -> int:
        """Drop what nobody has touched for too long; the number of uploads."""
        oldest = self._storage.clock() - self._limits.upload_expiry
        stale = [
            upload
            for upload in self._uploads.values()
            if upload.touched_at < oldest and not upload.lock.locked()
        ]
        for upload in stale:
            await self.drop(upload)
        return len(stale)


def _create(path: Path, document: dict[str, str]) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    state = path.with_name(path.name + ".json")
    write_atomically(state, json.dumps(document).encode(), mode=0o600, durable=False)


def _remove(path: Path) -> None:
    path.with_name(path.name + ".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _verify(upload: Upload, digest: str) -> bool:
    wanted = algorithm(digest)
    found = upload.hash
    with open(upload.path, "rb") as file:
        if found is None or wanted != upload.algorithm:
            found = hashlib.new(wanted)
            while piece := file.read(PIECE):
                found.update(piece)
        if found.hexdigest() != encoded(digest):
            return False
        os.fchmod(file.fileno(), 0o600)
        os.fsync(file.fileno())
    return True
