"""Unpacked layers: one directory per chain ID, shared by all images that have the chain.

`layers/<hex>/diff` is the layer in overlayfs form, `layers/<hex>/layer.json` says what it
is. A layer directory appears by rename only, whole. Its content is not synced file by file:
a layer that an earlier boot wrote and nobody called `settle` for counts as absent and is
unpacked again from its blob.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.errors import ImageError
from runtime.images.blobs import Blobs, BlobWriter
from runtime.images.leases import Lease
from runtime.images.merged import MergedTree
from runtime.images.pack import Packed, pack
from runtime.images.streams import (
    CHUNK,
    LONGEST_MAGIC,
    UNREGISTERED,
    Compressed,
    Guarded,
    Prefixed,
    Sha256,
    Tapped,
    Worker,
    decompressed,
    media_type,
)
from runtime.images.tar_reader import Source
from runtime.images.unpack import Limits, Unpacked, unpack
from runtime.linux.files import locked, sync_file_system
from runtime.oci.descriptor import LAYER, LAYER_GZIP, Descriptor
from runtime.oci.digest import chain_id, encoded
from runtime.removal import discard

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of an image: its blob, the digest of its plain tar, its place in a chain.

    `size` is the bytes of file content when unpacked.
    """

    diff_id: str
    chain_id: str
    descriptor: Descriptor
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """What `layer.json` says."""

    chain_id: str
    diff_id: str
    parent: str | None
    size: int
    entries: int
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedLayer:
    """A layer that is in its place already; its blob is put there by `store`, which must be
    called, from any thread, and takes as long as the disk does."""

    layer: Layer
    store: Callable[[], None]


class Layers:
    """The layers under `root`/layers."""

    def __init__(self, root: Path, blobs: Blobs, limits: Limits) -> None:
        self.directory = root / "layers"
        self._locks = root / "locks" / "layers"
        self._blobs = blobs
        self._limits = limits
        self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
        self._records: dict[str, LayerRecord] = {}

    def path(self, chain: str) -> Path:
        """The directory of an unpacked layer, there or not."""
        return self.directory / encoded(chain) / "diff"

    def record(self, chain: str) -> LayerRecord | None:
        """What is known of an unpacked layer; None where it is not there, whole."""
        directory = self.directory / encoded(chain)
        try:
            content = (directory / "layer.json").read_bytes()
        except FileNotFoundError:
            self._records.pop(chain, None)
            return None
        known = self._records.get(chain)
        if known is None:
            try:
                known = LayerRecord(**json.loads(content))
            except (ValueError, TypeError) as exc:
                raise ImageError(f"{directory / 'layer.json'} is damaged") from exc
            self._records[chain] = known
        if known.boot_id != self._boot_id and not (directory / "settled").exists():
            return None
        return known

    def add_tar(
        self,
        source: Source,
        *,
        parents: Sequence[str],
        lease: Lease,
        expected: Descriptor | None = None,
        as_it_is: bool = False,
    ) -> Layer:
        """Store and unpack a layer's tar, plain or compressed, read to its end.

        `parents` are the chain IDs below, lowest first; `expected` is the blob that a
        compressed stream must turn out to be. A plain one is compressed, unless it is to be
        kept `as_it_is`.
        """
        start = b""
        while len(start) < LONGEST_MAGIC and (piece := source.read(CHUNK)):
            start += piece
        kind = media_type(start)
        raw: Source = Prefixed(start, source)
        if kind in UNREGISTERED and expected is None:
            raw, kind = decompressed(raw, kind), LAYER  # no image may name such a blob
        difference = Sha256()
        directory = self._new(lease)
        with self._blobs.writing(lease) as blob, self._lower(parents) as lower:
            if kind == LAYER and as_it_is:
                with Worker(blob.write) as worker:
                    tapped = Tapped(raw, worker.put)
                    unpacked = unpack(tapped, directory / "diff", lower=lower, limits=self._limits)
                    worker.finish()
                descriptor = blob.commit(LAYER, expected=expected)
                diff_id = descriptor.digest
            elif kind == LAYER:
                compressed = Compressed(blob.write)

                def store(piece: bytes) -> None:
                    difference.update(piece)
                    compressed.put(piece)

                with Worker(store) as worker:
                    tapped = Tapped(raw, worker.put)
                    unpacked = unpack(tapped, directory / "diff", lower=lower, limits=self._limits)
                    worker.finish()
                compressed.finish()
                descriptor = blob.commit(LAYER_GZIP)
                diff_id = difference.digest
            else:
                with Worker(blob.write) as stored, Worker(difference.update) as hashed:
                    plain = Tapped(decompressed(Tapped(raw, stored.put), kind), hashed.put)
                    unpacked = unpack(plain, directory / "diff", lower=lower, limits=self._limits)
                    stored.finish()
                    hashed.finish()
                descriptor = blob.commit(kind, expected=expected)
                diff_id = difference.digest
        return self._publish(directory, parents, diff_id, descriptor, unpacked, lease)

    def commit(
        self, upper: Path, *, parents: Sequence[str], lease: Lease, epoch: int | None = None
    ) -> CommittedLayer:
        """Make the directory `upper` a layer: pack it into a blob and move it to its place.

        `upper` must lie in the store's file system and is gone afterwards. What is to stand on
        the layer need not wait for its blob to be on the disk.
        """
        with contextlib.ExitStack() as stack:
            blob = stack.enter_context(self._blobs.writing(lease))
            diff_id, packed = self._pack(upper, blob, parents, epoch, moves=True)
            directory = lease.path("layer")
            directory.mkdir(mode=0o700)
            os.rename(upper, directory / "diff")
            unpacked = Unpacked(entries=packed.entries, size=packed.size)
            descriptor = blob.described(LAYER_GZIP)
            layer = self._publish(directory, parents, diff_id, descriptor, unpacked, lease)
            held = stack.pop_all()

        def store() -> None:
            with held:
                blob.commit(LAYER_GZIP)

        return CommittedLayer(layer=layer, store=store)

    def add_copy(
        self, upper: Path, *, parents: Sequence[str], lease: Lease, epoch: int | None = None
    ) -> Layer:
        """Make a layer of what `upper` holds now, and leave it as it is."""
        with self._blobs.writing(lease) as blob:
            diff_id, _ = self._pack(upper, blob, parents, epoch, moves=False)
            descriptor = blob.commit(LAYER_GZIP)
        return self.ensure(descriptor, diff_id, parents=parents, lease=lease)

    def _pack(
        self,
        upper: Path,
        blob: BlobWriter,
        parents: Sequence[str],
        epoch: int | None,
        *,
        moves: bool,
    ) -> tuple[str, Packed]:
        difference = Sha256()
        compressed = Compressed(blob.write)

        def store(piece: bytes) -> None:
            difference.update(piece)
            compressed.put(piece)

        with self._lower(parents) as lower, Worker(store) as worker:
            packed = pack(upper, worker.put, lower=lower, epoch=epoch, settle_times=moves)
            worker.finish()
        compressed.finish()
        return difference.digest, packed

    def ensure(
        self,
        descriptor: Descriptor,
        diff_id: str,
        *,
        parents: Sequence[str],
        lease: Lease,
        stop: Callable[[], object] | None = None,
    ) -> Layer:
        """Have a layer unpacked whose blob is in the store; several callers do it once.

        `stop` is called again and again meanwhile: what it raises ends the work, and leaves
        nothing of it.
        """
        chain = chain_id(parents[-1] if parents else None, diff_id)
        with lease.publishing(chain):
            record = self.record(chain)
        if record is None:
            with self.exclusive(chain):
                record = self.record(chain) or self._unpack_blob(
                    descriptor, diff_id, parents, lease, stop
                )
        return Layer(diff_id=diff_id, chain_id=chain, descriptor=descriptor, size=record.size)

    def _unpack_blob(
        self,
        descriptor: Descriptor,
        diff_id: str,
        parents: Sequence[str],
        lease: Lease,
        stop: Callable[[], object] | None,
    ) -> LayerRecord:
        difference = Sha256()
        directory = self._new(lease)
        with self._blobs.open(descriptor.digest) as file, self._lower(parents) as lower:
            start = file.read(LONGEST_MAGIC)
            kind = media_type(start)
            raw: Source = Prefixed(start, file)
            if stop is not None:
                raw = Guarded(raw, stop)
            with Worker(difference.update) as hashed:
                plain = Tapped(decompressed(raw, kind), hashed.put)
                unpacked = unpack(plain, directory / "diff", lower=lower, limits=self._limits)
                hashed.finish()
        if difference.digest != diff_id:
            raise ImageError(
                f"layer {descriptor.digest} unpacks to {difference.digest}, not to {diff_id}"
            )
        layer = self._publish(directory, parents, diff_id, descriptor, unpacked, lease)
        record = self.record(layer.chain_id)
        assert record is not None, "the layer was just published"
        return record

    def settle(self) -> None:
        """Make all unpacked layers survive a power cut; for quiet moments."""
        unsettled = [
            entry.path
            for entry in os.scandir(self.directory)
            if not os.path.exists(os.path.join(entry.path, "settled"))
        ]
        if not unsettled:
            return
        sync_file_system(self.directory)
        for directory in unsettled:
            with contextlib.suppress(FileNotFoundError):
                os.close(os.open(os.path.join(directory, "settled"), os.O_CREAT | os.O_CLOEXEC))

    def chains(self) -> list[str]:
        """The chain IDs of the directories that are there."""
        return [f"sha256:{name}" for name in os.listdir(self.directory)]

    def take_away(self, chain: str, lease: Lease) -> Path | None:
        """Move a layer out of its place, to be deleted with the lease."""
        target = lease.path("removed")
        self._records.pop(chain, None)
        try:
            os.rename(self.directory / encoded(chain), target)
        except FileNotFoundError:
            return None
        return target

    def _new(self, lease: Lease) -> Path:
        directory = lease.path("layer")
        (directory / "diff").mkdir(mode=0o755, parents=True)
        return directory

    @contextlib.contextmanager
    def _lower(self, parents: Sequence[str]) -> Iterator[MergedTree]:
        with MergedTree(self.path(parent) for parent in parents) as tree:
            yield tree

    def _publish(
        self,
        directory: Path,
        parents: Sequence[str],
        diff_id: str,
        descriptor: Descriptor,
        unpacked: Unpacked,
        lease: Lease,
    ) -> Layer:
        parent = parents[-1] if parents else None
        chain = chain_id(parent, diff_id)
        record = LayerRecord(
            chain_id=chain,
            diff_id=diff_id,
            parent=parent,
            size=unpacked.size,
            entries=unpacked.entries,
            boot_id=self._boot_id,
        )
        (directory / "layer.json").write_text(json.dumps(asdict(record)), encoding="utf-8")
        target = self.directory / encoded(chain)
        with lease.publishing(chain):
            if self.record(chain) is None:
                if target.exists():
                    self.take_away(chain, lease)
                try:
                    os.rename(directory, target)
                except OSError as exc:
                    if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    # somebody else has just published the same chain
        discard(directory)  # still there where somebody else has published the chain
        return Layer(diff_id=diff_id, chain_id=chain, descriptor=descriptor, size=unpacked.size)

    @contextlib.contextmanager
    def exclusive(self, chain: str) -> Iterator[None]:
        """For the length of a block nobody else makes this layer."""
        path = self._locks / encoded(chain)
        with locked(path):
            try:
                yield
            finally:
                # Whoever waits sees that the file is gone and takes a new one.
                path.unlink(missing_ok=True)
