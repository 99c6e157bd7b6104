"""Upkeep of a store: what is reachable, what can go, and what is damaged.

Garbage is collected by mark and sweep while others pull and build: marking and the renames
of the sweep happen under a lock that every publication of content shares for a moment; what
a live lease keeps is never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ImageError, RuntimeFault
from runtime.images.blobs import Blobs
from runtime.images.layers import Layers
from runtime.images.layout_index import LayoutIndex, name_of
from runtime.images.leases import Leases
from runtime.linux.files import locked
from runtime.oci.descriptor import INDEXES, Descriptor
from runtime.oci.digest import chain_ids, is_digest
from runtime.oci.image_config import ImageConfig
from runtime.oci.manifest import Index, Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """Bytes in the store: unpacked layers, blobs, and of both what no image needs.

    `partial` counts blobs that pulls have begun and not finished; what nobody writes now of
    `partial_size` is part of `reclaimable`.
    """

    images: int
    layers: int
    layers_size: int
    reclaimable: int
    blobs: int
    blobs_size: int
    partial: int = 0
    partial_size: int = 0


class Upkeep:
    """The chores of one store; `pins` is the directory of its pin files, `partial` that of
    blobs that are being fetched."""

    def __init__(
        self,
        *,
        blobs: Blobs,
        layers: Layers,
        leases: Leases,
        index: LayoutIndex,
        pins: Path,
        partial: Path,
    ) -> None:
        self._blobs = blobs
        self._layers = layers
        self._leases = leases
        self._index = index
        self._pins = pins
        self._partial = partial

    def collect_garbage(self) -> int:
        """Delete what no image, pin or lease needs; the bytes freed."""
        freed = 0
        # The lock goes first, then the lease with the moved directories: deleting them is slow.
        with self._leases.open() as lease, locked(self._leases.collection):
            # Leases first: what one lets go of meanwhile is in the index or a pin by then.
            wanted = self._leases.kept()
            wanted |= self._pinned() | self._reachable()
            for digest in tuple(self._blobs.digests()):
                if digest not in wanted:
                    freed += self._blobs.remove(digest)
            for chain in self._layers.chains():
                if chain not in wanted:
                    record = self._layers.record(chain)
                    if self._layers.take_away(chain, lease) is not None and record is not None:
                        freed += record.size
        return freed

    def disk_usage(self) -> DiskUsage:
        """What the store holds and how much of it no image needs."""
        wanted = self._reachable()
        layers_size = reclaimable = blobs_size = blobs = 0
        chains = self._layers.chains()
        for chain in chains:
            record = self._layers.record(chain)
            size = record.size if record else 0
            layers_size += size
            reclaimable += 0 if chain in wanted else size
        for digest in self._blobs.digests():
            size = self._blobs.size(digest)
            blobs += 1
            blobs_size += size
            reclaimable += 0 if digest in wanted else size
        partial = partial_size = 0
        for path, size in self._partials():
            partial += 1
            partial_size += size
            with _unused(path) as unused:
                reclaimable += size if unused else 0
        return DiskUsage(
            images=len({entry.digest for entry in self._index.entries()}),
            layers=len(chains),
            layers_size=layers_size,
            reclaimable=reclaimable,
            blobs=blobs,
            blobs_size=blobs_size,
            partial=partial,
            partial_size=partial_size,
        )

    def remove_partials(self) -> int:
        """Delete what broken pulls have left and nobody takes up now; the bytes freed."""
        freed = 0
        for path, size in self._partials():
            with _unused(path) as unused:
                if unused:
                    path.unlink()
                    freed += size
        return freed

    def _partials(self) -> Iterator[tuple[Path, int]]:
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._partial):
                path = self._partial / name
                with contextlib.suppress(FileNotFoundError):
                    yield path, path.stat().st_size

    def check(self) -> tuple[str, ...]:
        """Every fault found: damaged or missing blobs, names that lead nowhere, bad layers."""
        faults = []
        for digest in tuple(self._blobs.digests()):
            if not is_digest(digest):
                faults.append(f"blobs: {digest} is not the name of a blob")
            elif not self._blobs.verify(digest):
                faults.append(f"blob {digest} is damaged")
        for entry in self._index.entries():
            name = name_of(entry) or entry.digest
            try:
                faults += [f"image {name}: {fault}" for fault in self._faults(entry, set())]
            except ImageError as exc:
                faults.append(f"image {name}: {exc}")
        for chain in self._layers.chains():
            try:
                record = self._layers.record(chain)
            except ImageError as exc:
                faults.append(str(exc))
                continue
            whole = self._layers.path(chain).is_dir()
            if record is not None and (record.chain_id != chain or not whole):
                faults.append(f"layer {chain} is damaged")
        return tuple(faults)

    def _faults(self, entry: Descriptor, seen: set[str]) -> list[str]:
        if entry.digest in seen:
            return []
        seen.add(entry.digest)
        content = self._blobs.read(entry.digest)
        if entry.media_type in INDEXES:
            children = [
                child
                for child in Index.from_bytes(content).manifests
                if self._blobs.has(child.digest)  # not every platform was fetched
            ]
            if not children:
                return ["none of its platforms is in the store"]
            return [fault for child in children for fault in self._faults(child, seen)]
        manifest = Manifest.from_bytes(content)
        ImageConfig.from_bytes(self._blobs.read(manifest.config.digest))
        return [
            f"blob {part.digest} has the wrong size"
            for part in (manifest.config, *manifest.layers)
            if self._blobs.size(part.digest) != part.size
        ]

    def _reachable(self) -> set[str]:
        """All that the entries of the index lead to, whatever they claim to be: another name for
        a document, or one that is none, must not keep garbage from being collected."""
        wanted: set[str] = set()
        seen: set[tuple[str, bool]] = set()
        waiting = list(self._index.entries())
        while waiting:
            entry = waiting.pop()
            is_index = entry.media_type in INDEXES
            if (entry.digest, is_index) in seen:
                continue
            seen.add((entry.digest, is_index))
            wanted.add(entry.digest)
            try:
                content = self._blobs.read(entry.digest)
                if is_index:
                    waiting += Index.from_bytes(content).manifests
                else:
                    wanted |= self._parts(Manifest.from_bytes(content))
            except ImageError:
                continue  # a platform that was never fetched, or damage, which `check` tells
        return wanted

    def _parts(self, manifest: Manifest) -> set[str]:
        wanted = {manifest.config.digest, *(layer.digest for layer in manifest.layers)}
        try:
            config = ImageConfig.from_bytes(self._blobs.read(manifest.config.digest))
        except RuntimeFault:
            return wanted  # an artifact whose config is not an image's
        return wanted | set(chain_ids(config.diff_ids))

    def _pinned(self) -> set[str]:
        """The digests in files `*.pin`, one a line: what the build cache keeps, for one."""
        wanted: set[str] = set()
        for directory, _, names in os.walk(self._pins):
            for name in names:
                if name.endswith(".pin"):
                    with contextlib.suppress(FileNotFoundError):
                        wanted.update(Path(directory, name).read_text(encoding="ascii").split())
        return wanted


@contextlib.contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Hold the lock of a file that is there, and that nobody else holds or has just moved."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(os.fstat(fd), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        ours = False
    try:
        yield ours
    finally:
        os.close(fd)
