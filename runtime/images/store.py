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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runtime.errors import ImageError, ImageNotFound, InUse
from runtime.images.blobs import Blobs
from runtime.images.catalogue import Catalogue, Images
from runtime.images.catalogue import HistoryLine as HistoryLine
from runtime.images.catalogue import Image as Image
from runtime.images.layers import CommittedLayer, Layer, Layers
from runtime.images.layout_index import LayoutIndex, unnamed
from runtime.images.leases import Lease, Leases
from runtime.images.platforms import choose as choose
from runtime.images.platforms import host_platform as host_platform
from runtime.images.reference import Reference
from runtime.images.tar_reader import Source
from runtime.images.unpack import Limits
from runtime.images.upkeep import DiskUsage, Upkeep
from runtime.linux.files import remove_drafts, write_atomically
from runtime.oci.descriptor import CONFIG, INDEX, MANIFEST, Descriptor, Platform
from runtime.oci.digest import chain_ids
from runtime.oci.image_config import ImageConfig
from runtime.oci.manifest import Index, Manifest

_log = logging.getLogger(__name__)
_HEX = re.compile(r"[0-9a-f]{1,64}\Z")
_DRAFT_AGE = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What a removal did: names taken away, image IDs gone, bytes freed."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
    freed: int


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
        self._upkeep = Upkeep(
            blobs=self.blobs,
            layers=self.layers,
            leases=self._leases,
            index=self._index,
            pins=self.root / "pins",
            partial=self.root / "partial",
        )
        self._catalogue = Catalogue(self._index, self.blobs, self.layers)
        layout = self.root / "oci-layout"
        if not layout.exists():
            write_atomically(layout, b'{"imageLayoutVersion":"1.0.0"}')
        self._leases.sweep()
        remove_drafts(self.root, age=_DRAFT_AGE)

    # Looking up

    def resolve(self, reference: str, platform: Platform | None = None) -> Image:
        """The image of a name, a name with digest, or an image ID or its beginning.

        `platform` (None: this host's) chooses where that is an index. Raises ImageNotFound, and
        ImageError where the beginning of an ID fits several, or an index has not the platform.
        """
        return self._catalogue.resolve(reference, platform)

    def list(self) -> Images:
        """All images, newest first; an image whose documents are damaged is left to `check`."""
        return self._catalogue.list()

    def history(self, image: Image) -> tuple[HistoryLine, ...]:
        """How the image came to be, newest step first."""
        return self._catalogue.history(image)

    def is_name(self, reference: str) -> bool:
        """True where a name, not an ID, leads to an image."""
        return self._catalogue.is_name(reference)

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

    def hold(self, image: Image, lease: Lease) -> None:
        """Keep all of an image as long as the lease; raises ImageNotFound if it is gone."""
        parts = (image.manifest.config, *image.manifest.layers)
        for digest in (image.digest, *(part.digest for part in parts)):
            if not self.blobs.claim(digest, lease):
                raise ImageNotFound(image.id)
        for chain in chain_ids(image.config.diff_ids):
            with lease.publishing(chain):
                pass  # naming it is enough

    def image_layers(self, image: Image) -> tuple[Layer, ...]:
        """The layers of an image, unpacked, lowest first; to build another image on."""
        self.layer_paths(image)
        sizes = self._catalogue.layer_sizes(image.config, image.manifest)
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
        as_it_is: bool = False,
    ) -> Layer:
        """Store and unpack a layer's tar (plain, gzip, zstd); see `Layers.add_tar`."""
        return self.layers.add_tar(
            source, parents=parents, lease=lease, expected=expected, as_it_is=as_it_is
        )

    def commit_directory(
        self, upper: Path, *, lease: Lease, parents: Sequence[str] = (), epoch: int | None = None
    ) -> CommittedLayer:
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
        # Not looked up: somebody may have removed it already, and its content is still leased.
        return self.image_of(descriptor)

    def image_of(self, manifest: Descriptor) -> Image:
        """The image of a manifest that is in the store, entered in its index or not."""
        return self._catalogue.image(manifest, self._index.entries())

    def create_index(
        self, images: Sequence[Image], references: Sequence[str], *, lease: Lease
    ) -> Image:
        """One image of several platforms: an index of images that `lease` holds, and that have
        no name of their own; it gets the names, and the result is this host's part of it, or
        the first."""
        children = [
            Descriptor(
                media_type=MANIFEST,
                digest=image.digest,
                size=self.blobs.size(image.digest),
                platform=image.config.platform,
            )
            for image in images
        ]
        descriptor = self.blobs.put(Index(manifests=tuple(children)).to_bytes(), INDEX, lease)
        self._index.add(descriptor, [_canonical(reference) for reference in references])
        self._index.remove_nameless({child.digest for child in children})
        platforms = [image.config.platform for image in images]
        own = host_platform()
        chosen = next((p for p in platforms if p.architecture == own.architecture), platforms[0])
        return self._catalogue.image(descriptor, self._index.entries(), chosen)

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
        by_id = not self.is_name(reference)
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

    def prune(
        self,
        *,
        everything: bool = False,
        used: Collection[str] = (),
        until: datetime | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> Removed:
        """Remove images without a name (`everything`: all) that nobody uses, what broken pulls
        have left, and garbage.

        `used` are image IDs of containers; `until` keeps images made later; of `labels` every
        one must be there, with its value where one is given.
        """
        doomed = [
            image
            for image in self.list()
            if (everything or not image.references)
            and image.id not in used
            and (until is None or _made_before(image, until))
            and all(
                name in image.config.labels and value in (None, image.config.labels[name])
                for name, value in (labels or {}).items()
            )
        ]
        self._index.remove({image.digest for image in doomed})
        return Removed(
            untagged=tuple(sorted(name for image in doomed for name in image.references)),
            deleted=tuple(image.id for image in doomed),
            freed=self._upkeep.remove_partials() + self.collect_garbage(),
        )

    def collect_garbage(self) -> int:
        """Delete what no image, pin or lease needs; the bytes freed. Others may go on working."""
        freed = self._upkeep.collect_garbage()
        self._catalogue.forget_what_is_gone()
        return freed

    def disk_usage(self) -> DiskUsage:
        """What the store holds and how much of it no image needs."""
        return self._upkeep.disk_usage()

    def check(self) -> tuple[str, ...]:
        """Every fault found: damaged or missing blobs, names that lead nowhere, bad layers."""
        return self._upkeep.check()

    def settle(self) -> None:
        """Make everything survive a power cut; slow, for quiet moments."""
        self.layers.settle()


def _canonical(reference: str) -> str:
    return Reference.parse(reference).canonical


def _made_before(image: Image, moment: datetime) -> bool:
    """True for an image that is older; one that does not say when it was made counts as old."""
    try:
        made = datetime.fromisoformat(image.created)
    except ValueError:
        return True
    return (made if made.tzinfo else made.replace(tzinfo=UTC)) < moment
