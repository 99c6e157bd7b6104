"""The image store: an OCI image layout with names, and the layers unpacked beside it.

`root` itself is an OCI image layout (image-layout.md): `oci-layout`, `index.json` and
`blobs/`. A name is an annotation of an entry of `index.json`; an entry without one is an
untagged image. `index.json` is replaced as a whole under a lock, after everything that it
points to is in place, so a reader never sees half an image.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ImageError, ImageNotFound, InUse, RuntimeFault
from runtime.images.blobs import Blobs
from runtime.images.layers import Layer, Layers
from runtime.images.layout_index import Entries, LayoutIndex, name_of, unnamed
from runtime.images.leases import Lease, Leases
from runtime.images.reference import Reference
from runtime.images.tar_reader import Source
from runtime.images.unpack import Limits
from runtime.linux.files import locked, write_atomically
from runtime.oci.descriptor import (
    CONFIG,
    INDEXES,
    MANIFEST,
    Descriptor,
    Platform,
)
from runtime.oci.digest import chain_ids, is_digest
from runtime.oci.image_config import HistoryEntry, ImageConfig
from runtime.oci.manifest import Index, Manifest

_log = logging.getLogger(__name__)
_HEX = re.compile(r"[0-9a-f]{1,64}\Z")
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "i686": ("386", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
}


def host_platform() -> Platform:
    """This machine's platform in OCI's words."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of this store.

    `id` is the digest of its config, `digest` of what its names point to (a manifest or an
    index); `references` are familiar names; `size` is the bytes of its layers' files;
    `created` as in the config (RFC 3339, "" where unknown).
    """

    id: str
    digest: str
    references: tuple[str, ...]
    config: ImageConfig
    manifest: Manifest
    size: int
    created: str


Images = list[Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine:
    """One step of an image's history, newest first, with the bytes that it added."""

    created: str
    created_by: str
    comment: str
    size: int
    empty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What a removal did: names taken away, image IDs gone, bytes freed."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
    freed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """Bytes in the store: unpacked layers, of them those that no image uses, and blobs."""

    images: int
    layers: int
    layers_size: int
    reclaimable: int
    blobs: int
    blobs_size: int


@dataclass(frozen=True, slots=True)
class _Loaded:
    id: str
    manifest: Manifest
    config: ImageConfig


class ImageStore:
    """Images under `root`; safe for several processes and threads.

    Opening it sweeps what a crash left.
    """

    def __init__(self, root: str | os.PathLike[str], *, limits: Limits | None = None) -> None:
        self.root = Path(root)
        for name in ("blobs/sha256", "blobs/sha512", "layers", "ingest", "locks/layers", "pins"):
            (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.blobs = Blobs(self.root)
        self.layers = Layers(self.root, self.blobs, limits or Limits())
        self._leases = Leases(self.root / "ingest", self.root / "locks")
        self._index = LayoutIndex(self.root / "index.json", self.root / "locks" / "index")
        self._mutex = threading.Lock()
        self._loaded: dict[str, _Loaded] = {}
        layout = self.root / "oci-layout"
        if not layout.exists():
            write_atomically(layout, b'{"imageLayoutVersion":"1.0.0"}')
        self._leases.sweep()

    # Looking up

    def resolve(self, reference: str) -> Image:
        """The image of a name, a name with digest, or an image ID or its beginning.

        Raises ImageNotFound, and ImageError where the beginning of an ID fits several.
        """
        images = self._index.entries()
        if is_digest(reference):
            found = tuple(e for e in images if reference in (e.digest, self._id(e)))
        else:
            found = self._named(reference, images)
        if not found and _HEX.match(reference):
            found = tuple(
                e
                for e in images
                if (self._id(e) or "").startswith(f"sha256:{reference}")
                or e.digest.startswith(f"sha256:{reference}")
            )
        digests = {e.digest for e in found}
        if not found:
            raise ImageNotFound(reference)
        if len({self._id(e) for e in found}) > 1:
            raise ImageError(f"image ID {reference} is ambiguous: it fits {len(digests)} images")
        return self._image(found[0], images)

    def list(self) -> Images:
        """All images, newest first; an image whose documents are damaged is left to `check`."""
        entries = self._index.entries()
        images: dict[str, Image] = {}
        for entry in entries:
            if entry.digest not in images:
                try:
                    images[entry.digest] = self._image(entry, entries)
                except ImageError as exc:
                    _log.warning("image %s is damaged: %s", entry.digest, exc)
        return sorted(images.values(), key=lambda image: image.created, reverse=True)

    def is_name(self, reference: str) -> bool:
        """True where a name, not an ID, leads to an image."""
        return self._named_exactly(reference)

    def descriptor(self, image: Image) -> Descriptor:
        """What the image's names point to: its manifest or an index, without a name."""
        for entry in self._index.entries():
            if entry.digest == image.digest:
                return unnamed(entry)
        raise ImageNotFound(image.id)

    def layer_paths(self, image: Image) -> tuple[Path, ...]:
        """The unpacked layers, lowest first; what is not unpacked yet is unpacked now."""
        chains = chain_ids(image.config.diff_ids)
        if len(chains) != len(image.manifest.layers):
            raise ImageError(
                f"image {image.id} has {len(image.manifest.layers)} layers, "
                f"but its config names {len(chains)}"
            )
        if any(self.layers.record(chain) is None for chain in chains):
            with self.lease() as lease:
                for number, descriptor in enumerate(image.manifest.layers):
                    self.layers.ensure(
                        descriptor,
                        image.config.diff_ids[number],
                        parents=chains[:number],
                        lease=lease,
                    )
        return tuple(self.layers.path(chain) for chain in chains)

    def image_layers(self, image: Image) -> tuple[Layer, ...]:
        """The layers of an image, unpacked, lowest first; to build another image on."""
        self.layer_paths(image)
        sizes = self._layer_sizes(image.config, image.manifest)
        return tuple(
            Layer(diff_id=diff_id, chain_id=chain, descriptor=descriptor, size=size)
            for diff_id, chain, descriptor, size in zip(
                image.config.diff_ids,
                chain_ids(image.config.diff_ids),
                image.manifest.layers,
                sizes,
                strict=True,
            )
        )

    def history(self, image: Image) -> tuple[HistoryLine, ...]:
        """How the image came to be, newest step first."""
        sizes = iter(self._layer_sizes(image.config, image.manifest))
        lines = []
        entries = image.config.history or tuple(HistoryEntry() for _ in image.config.diff_ids)
        for entry in entries:
            size = 0 if entry.empty_layer else next(sizes, 0)
            lines.append(
                HistoryLine(
                    created=entry.created,
                    created_by=entry.created_by,
                    comment=entry.comment,
                    size=size,
                    empty=entry.empty_layer,
                )
            )
        return tuple(reversed(lines))

    # Making

    @contextlib.contextmanager
    def lease(self) -> Iterator[Lease]:
        """Protects what is added until it is part of an image."""
        with self._leases.open() as lease:
            yield lease

    def add_layer(
        self,
        source: Source,
        *,
        lease: Lease,
        parents: Sequence[str] = (),
        expected: Descriptor | None = None,
    ) -> Layer:
        """Store and unpack a layer's tar (plain, gzip, zstd); see `Layers.add_tar`."""
        return self.layers.add_tar(source, parents=parents, lease=lease, expected=expected)

    def commit_directory(
        self, upper: Path, *, lease: Lease, parents: Sequence[str] = (), epoch: int | None = None
    ) -> Layer:
        """Make an overlayfs upper directory a layer; see `Layers.commit`."""
        return self.layers.commit(upper, parents=parents, lease=lease, epoch=epoch)

    def create_image(
        self,
        config: ImageConfig,
        layers: Sequence[Layer],
        references: Sequence[str] = (),
        *,
        lease: Lease,
        annotations: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Image:
        """Store config and manifest, and give the image its names.

        `content` are the config's own bytes where it was made elsewhere: they are its ID.
        """
        names = [_canonical(reference) for reference in references]
        for layer in layers:
            if not self.blobs.claim(layer.descriptor.digest, lease):
                raise ImageError(f"blob {layer.descriptor.digest} is not in the store")
        complete = config.replace(diff_ids=tuple(layer.diff_id for layer in layers))
        manifest = Manifest(
            config=self.blobs.put(content or complete.to_bytes(), CONFIG, lease),
            layers=tuple(layer.descriptor for layer in layers),
            annotations=annotations or {},
        )
        descriptor = dataclasses.replace(
            self.blobs.put(manifest.to_bytes(), MANIFEST, lease), platform=complete.platform
        )
        self._index.add(descriptor, names)
        return self.resolve(descriptor.digest)

    def add_names(self, descriptor: Descriptor, references: Sequence[str]) -> None:
        """Give a manifest or index whose content is all in the store its names."""
        names = [_canonical(reference) for reference in references]
        self._index.add(descriptor, names)

    def tag(self, reference: str, image: str) -> Image:
        """Give the image that `image` resolves to a further name."""
        digest = self.resolve(image).digest
        self._index.rename(digest, _canonical(reference))
        return self.resolve(digest)

    def untag(self, reference: str) -> None:
        """Take a name away; the image stays, by its ID."""
        self._index.untag(_canonical(reference))

    # Removing

    def remove(
        self,
        reference: str,
        *,
        force: bool = False,
        used_by: Mapping[str, Sequence[str]] | None = None,
    ) -> Removed:
        """Remove a name, and the image with its last one; by ID, the image with all names.

        `used_by` gives the users (containers) of image IDs: such an image stays. An image
        with several names is removed by ID with `force` only.
        """
        image = self.resolve(reference)
        users = tuple((used_by or {}).get(image.id, ()))
        by_id = not self._named_exactly(reference)
        names = set(image.references)
        if not by_id and len(names) > 1:
            name = Reference.parse(reference).familiar()
            self.untag(reference)
            return Removed(untagged=(name,), deleted=(), freed=0)
        if users:
            raise InUse("image", reference, users)
        if by_id and len(names) > 1 and not force:
            raise InUse("image", reference, tuple(sorted(names)))
        self._index.remove({image.digest})
        return Removed(
            untagged=tuple(sorted(names)), deleted=(image.id,), freed=self.collect_garbage()
        )

    def collect_garbage(self) -> int:
        """Delete what no image, pin or lease needs; the bytes freed. Others may go on working."""
        freed = 0
        # The lock goes first, then the lease with the moved directories: deleting them is slow.
        with self.lease() as lease, locked(self._leases.collection):
            wanted = self._reachable() | self._leases.kept()
            for digest in tuple(self.blobs.digests()):
                if digest not in wanted:
                    freed += self.blobs.remove(digest)
            for chain in self.layers.chains():
                if chain not in wanted:
                    record = self.layers.record(chain)
                    if self.layers.take_away(chain, lease) is not None and record is not None:
                        freed += record.size
        with self._mutex:
            self._loaded = {d: known for d, known in self._loaded.items() if self.blobs.has(d)}
        return freed

    def disk_usage(self) -> DiskUsage:
        """What the store holds and how much of it no image needs."""
        wanted = self._reachable(pins=False)
        layers_size = reclaimable = blobs_size = blobs = 0
        chains = self.layers.chains()
        for chain in chains:
            record = self.layers.record(chain)
            size = record.size if record else 0
            layers_size += size
            reclaimable += 0 if chain in wanted else size
        for digest in self.blobs.digests():
            size = self.blobs.size(digest)
            blobs += 1
            blobs_size += size
            reclaimable += 0 if digest in wanted else size
        return DiskUsage(
            images=len({entry.digest for entry in self._index.entries()}),
            layers=len(chains),
            layers_size=layers_size,
            reclaimable=reclaimable,
            blobs=blobs,
            blobs_size=blobs_size,
        )

    # Checking

    def settle(self) -> None:
        """Make everything survive a power cut; slow, for quiet moments."""
        self.layers.settle()

    def check(self) -> tuple[str, ...]:
        """Every fault found: damaged or missing blobs, names that lead nowhere, bad layers."""
        faults = []
        for digest in tuple(self.blobs.digests()):
            if not is_digest(digest):
                faults.append(f"blobs: {digest} is not the name of a blob")
            elif not self.blobs.verify(digest):
                faults.append(f"blob {digest} is damaged")
        for entry in self._index.entries():
            name = name_of(entry) or entry.digest
            try:
                loaded = self._load(entry)
                for part in (loaded.manifest.config, *loaded.manifest.layers):
                    if self.blobs.size(part.digest) != part.size:
                        faults.append(f"image {name}: blob {part.digest} has the wrong size")
            except ImageError as exc:
                faults.append(f"image {name}: {exc}")
        for chain in self.layers.chains():
            try:
                record = self.layers.record(chain)
            except ImageError as exc:
                faults.append(str(exc))
                continue
            if record is not None and (
                record.chain_id != chain or not self.layers.path(chain).is_dir()
            ):
                faults.append(f"layer {chain} is damaged")
        return tuple(faults)

    # The index

    def _named(self, reference: str, entries: Entries) -> Entries:
        try:
            wanted = Reference.parse(reference)
        except ImageError:
            if _HEX.match(reference):
                return ()
            raise
        if wanted.digest is None:
            return tuple(e for e in entries if name_of(e) == wanted.canonical)
        return tuple(
            e
            for e in entries
            if wanted.digest in (e.digest, self._id(e))
            and (name := name_of(e)) is not None
            and Reference.parse(name).name == wanted.name
        )

    def _named_exactly(self, reference: str) -> bool:
        if is_digest(reference):
            return False
        try:
            return bool(self._named(reference, self._index.entries()))
        except ImageError:
            return False

    # Documents

    def _id(self, entry: Descriptor) -> str | None:
        try:
            return self._load(entry).id
        except ImageError:
            return None  # `check` tells

    def _load(self, entry: Descriptor) -> _Loaded:
        with self._mutex:
            known = self._loaded.get(entry.digest)
        if known is not None:
            return known
        content = self.blobs.read(entry.digest)
        if entry.media_type in INDEXES:
            chosen = choose(Index.from_bytes(content), host_platform())
            content = self.blobs.read(chosen.digest)
        manifest = Manifest.from_bytes(content)
        config = ImageConfig.from_bytes(self.blobs.read(manifest.config.digest))
        loaded = _Loaded(manifest.config.digest, manifest, config)
        with self._mutex:
            self._loaded[entry.digest] = loaded
        return loaded

    def _image(self, entry: Descriptor, entries: Entries) -> Image:
        loaded = self._load(entry)
        names = sorted(
            Reference.parse(name).familiar()
            for other in entries
            if other.digest == entry.digest and (name := name_of(other)) is not None
        )
        return Image(
            id=loaded.id,
            digest=entry.digest,
            references=tuple(names),
            config=loaded.config,
            manifest=loaded.manifest,
            size=sum(self._layer_sizes(loaded.config, loaded.manifest)),
            created=loaded.config.created,
        )

    def _layer_sizes(self, config: ImageConfig, manifest: Manifest) -> tuple[int, ...]:
        sizes = []
        for chain, descriptor in zip(chain_ids(config.diff_ids), manifest.layers, strict=False):
            record = self.layers.record(chain)
            sizes.append(descriptor.size if record is None else record.size)
        return tuple(sizes)

    def _reachable(self, *, pins: bool = True) -> set[str]:
        wanted: set[str] = set()
        for entry in self._index.entries():
            wanted |= self._reach(entry)
        if pins:
            wanted |= self.pinned()
        return wanted

    def _reach(self, entry: Descriptor) -> set[str]:
        wanted = {entry.digest}
        try:
            content = self.blobs.read(entry.digest)
        except ImageError:
            return wanted  # a platform that was never fetched
        if entry.media_type in INDEXES:
            for child in Index.from_bytes(content).manifests:
                wanted |= self._reach(child)
            return wanted
        manifest = Manifest.from_bytes(content)
        wanted |= {manifest.config.digest, *(layer.digest for layer in manifest.layers)}
        try:
            config = ImageConfig.from_bytes(self.blobs.read(manifest.config.digest))
        except RuntimeFault:
            return wanted  # an artifact whose config is not an image's
        return wanted | set(chain_ids(config.diff_ids))

    def pinned(self) -> set[str]:
        """Digests that files under `pins/` name, one a line (the build cache's, for one)."""
        wanted: set[str] = set()
        for directory, _, names in os.walk(self.root / "pins"):
            for name in names:
                if not name.endswith(".pin"):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    wanted.update(Path(directory, name).read_text(encoding="ascii").split())
        return wanted


def choose(index: Index, platform: Platform) -> Descriptor:
    """The manifest of an index for a platform; raises ImageError that names what there is."""
    fitting = [
        manifest
        for manifest in index.manifests
        if manifest.platform is not None
        and (manifest.platform.os, manifest.platform.architecture)
        == (platform.os, platform.architecture)
    ]
    exact = [m for m in fitting if m.platform and m.platform.variant == platform.variant]
    for candidates in (exact, fitting):
        if candidates:
            return candidates[0]
    if len(index.manifests) == 1 and index.manifests[0].platform is None:
        return index.manifests[0]
    there = ", ".join(sorted(str(m.platform) for m in index.manifests if m.platform))
    raise ImageError(f"the image is not made for {platform}; it is for {there or 'no platform'}")


def _canonical(reference: str) -> str:
    return Reference.parse(reference).canonical
