"""Blobs by digest: written beside, verified, made durable, then renamed to their name.

Source: OCI image-spec image-layout.md ("Blobs").
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import ImageError
from runtime.images.leases import Lease
from runtime.images.streams import LONGEST_MAGIC, media_type
from runtime.linux.files import begin_writing, sync_directory
from runtime.oci.descriptor import Descriptor
from runtime.oci.digest import algorithm, check_digest, digest_of, encoded
from runtime.oci.documents import MAX_DOCUMENT

_CHUNK = 1024 * 1024


class BlobWriter:
    """A blob being written: `write` pieces, then `commit`."""

    def __init__(self, blobs: Blobs, lease: Lease, kind: str) -> None:
        self._blobs = blobs
        self._kind = kind
        self._lease = lease
        self._path = lease.path("blob")
        self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115 - closed by close()
        self._hash = hashlib.new(kind)
        self.size = 0

    def write(self, piece: bytes) -> None:
        self._hash.update(piece)
        before, self.size = self.size, self.size + len(piece)
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]
        begin_writing(self._file.fileno(), before, self.size)

    def described(self, media_type: str) -> Descriptor:
        """What the blob is, as far as it is written."""
        digest = f"{self._kind}:{self._hash.hexdigest()}"
        return Descriptor(media_type=media_type, digest=digest, size=self.size)

    def commit(self, media_type: str, *, expected: Descriptor | None = None) -> Descriptor:
        """Put the blob in its place; raises ImageError where it is not what was expected."""
        written = self.described(media_type)
        digest = written.digest
        if expected is not None and (expected.digest, expected.size) != (digest, self.size):
            raise ImageError(
                f"the content is {digest} of {self.size} bytes, "
                f"not {expected.digest} of {expected.size}"
            )
        with self._lease.publishing(digest):
            if not self._blobs.has(digest):
                os.fsync(self._file.fileno())
                os.fchmod(self._file.fileno(), 0o644)
                target = self._blobs.path(digest)
                os.rename(self._path, target)
                sync_directory(target.parent)
        return written

    def close(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class Blobs:
    """The blobs under `root`/blobs."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "blobs"

    def path(self, digest: str) -> Path:
        """The file of a blob, there or not; a text that is no digest is refused."""
        check_digest(digest)
        return self.directory / algorithm(digest) / encoded(digest)

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def claim(self, digest: str, lease: Lease) -> bool:
        """True where the blob is there; it then stays as long as the lease."""
        with lease.publishing(digest):
            return self.has(digest)

    def size(self, digest: str) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as exc:
            raise ImageError(f"blob {digest} is not in the store") from exc

    def read(self, digest: str) -> bytes:
        """A document's bytes, verified."""
        try:
            with open(self.path(digest), "rb") as file:
                content = file.read(MAX_DOCUMENT + 1)
        except FileNotFoundError as exc:
            raise ImageError(f"blob {digest} is not in the store") from exc
        if hashlib.new(algorithm(digest), content).hexdigest() != encoded(digest):
            raise ImageError(f"blob {digest} is damaged")
        return content

    def open(self, digest: str) -> io.FileIO:
        """A blob for streaming, not verified."""
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError as exc:
            raise ImageError(f"blob {digest} is not in the store") from exc

    def describe_layer(self, digest: str) -> Descriptor:
        """A layer's blob as a manifest names it, by how it is compressed."""
        with self.open(digest) as file:
            kind = media_type(file.read(LONGEST_MAGIC))
        return Descriptor(media_type=kind, digest=digest, size=self.size(digest))

    @contextlib.contextmanager
    def writing(self, lease: Lease, kind: str = "sha256") -> Iterator[BlobWriter]:
        """A new blob, whose digest is of the algorithm `kind`."""
        writer = BlobWriter(self, lease, kind)
        try:
            yield writer
        finally:
            writer.close()

    def put(self, content: bytes, media_type: str, lease: Lease) -> Descriptor:
        """Store a document."""
        digest = digest_of(content)
        if self.claim(digest, lease):
            return Descriptor(media_type=media_type, digest=digest, size=len(content))
        with self.writing(lease) as writer:
            writer.write(content)
            return writer.commit(media_type)

    def digests(self) -> Iterator[str]:
        """Every blob's digest, by the name of its file."""
        for name in ("sha256", "sha512"):
            with contextlib.suppress(FileNotFoundError):
                for blob in os.listdir(self.directory / name):
                    yield f"{name}:{blob}"

    def verify(self, digest: str) -> bool:
        """True where the blob's content has its digest."""
        running = hashlib.new(algorithm(digest))
        with self.open(digest) as file:
            while piece := file.read(_CHUNK):
                running.update(piece)
        return running.hexdigest() == encoded(digest)

    def remove(self, digest: str) -> int:
        """Delete a blob; the bytes freed."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size
