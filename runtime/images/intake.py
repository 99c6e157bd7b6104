"""Taking what an OCI layout holds into the store, wherever the layout lies.

Every blob is verified while it is stored, and a layer that is not unpacked yet is stored and
unpacked in one pass. Several callers do the work once: who comes second waits for the layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from runtime.errors import ImageError
from runtime.images.layers import Layer
from runtime.images.leases import Lease
from runtime.images.platforms import choose, host_platform
from runtime.images.reference import Reference
from runtime.images.save import FULL_NAME
from runtime.images.store import Image, ImageStore
from runtime.images.streams import CHUNK
from runtime.images.tar_reader import Source
from runtime.oci.descriptor import (
    CONFIG,
    DOCKER_CONFIG,
    INDEXES,
    MANIFESTS,
    REFERENCE_NAME,
    Descriptor,
    Platform,
)
from runtime.oci.digest import algorithm, chain_id, chain_ids
from runtime.oci.image_config import ImageConfig
from runtime.oci.manifest import Index, Manifest

_DEEPEST = 8
_MOST = 10_000
"""Documents of one image: far beyond what anybody makes, and little work."""


class Blob(Protocol):
    """A blob where the layout has it, which may be read several times."""

    @property
    def size(self) -> int: ...

    def opened(self) -> AbstractContextManager[Source]: ...


class Intake:
    """Takes from a layout; `find` gives the blobs that it has, by digest."""

    def __init__(self, store: ImageStore, lease: Lease, find: Callable[[str], Blob | None]) -> None:
        self._store = store
        self._lease = lease
        self._find = find
        self._seen: set[str] = set()

    def images(self, index: Index) -> list[tuple[Descriptor, list[str]]]:
        """Take every image of a layout's index; what each one's names point to, and the names.

        Raises ImageError.
        """
        found: dict[str, tuple[Descriptor, list[str]]] = {}
        for entry in index.manifests:
            if entry.media_type not in MANIFESTS | INDEXES:
                continue  # an artifact of another kind
            self._complete(entry, unpack=True, depth=0)
            _, names = found.setdefault(entry.digest, (_bare(entry), []))
            names += _names(entry)
        return list(found.values())

    def image(self, entry: Descriptor, platform: Platform | None) -> Image:
        """Take one image, kept by the lease alone; of an index that for `platform` (None: this
        host's). Raises ImageError."""
        for _ in range(_DEEPEST):
            if not self.have(entry.digest):
                raise ImageError(f"blob {entry.digest} is missing in the layout")
            if entry.media_type not in INDEXES:
                break
            content = self._store.blobs.read(entry.digest)
            entry = choose(Index.from_bytes(content), platform or host_platform())
        else:
            raise _too_deep()
        self._complete(entry, unpack=True, depth=0)
        return self._store.image_of(_bare(entry))

    def have(self, digest: str) -> bool:
        """Have a blob in the store, if the layout has it or it is there."""
        if self._store.blobs.claim(digest, self._lease):
            return True
        blob = self._find(digest)
        if blob is None:
            return False
        with blob.opened() as source:
            self.take(digest, blob.size, source)
        return True

    def take(self, digest: str, size: int, source: Source) -> None:
        """Put a blob of a known digest into the store, verified."""
        if self._store.blobs.claim(digest, self._lease):
            return
        with self._store.blobs.writing(self._lease, algorithm(digest)) as writer:
            while piece := source.read(CHUNK):
                writer.write(piece)
            expected = Descriptor(media_type="", digest=digest, size=size)
            writer.commit("", expected=expected)

    def layer(
        self,
        opened: AbstractContextManager[Source],
        diff_id: str,
        *,
        parents: Sequence[str],
        digest: str | None,
    ) -> Layer:
        """Have a layer for which there is no descriptor, though maybe the `digest` of its blob; a
        plain one is stored as it is. It may turn out to be another than `diff_id`."""
        chain = chain_id(parents[-1] if parents else None, diff_id)
        with self._store.layers.exclusive(chain):
            with self._lease.publishing(chain):
                record = self._store.layers.record(chain)
            for known in (digest, diff_id):
                if record is None or known is None:
                    continue
                if self._store.blobs.claim(known, self._lease):
                    return Layer(
                        diff_id=diff_id,
                        chain_id=chain,
                        descriptor=self._store.blobs.describe_layer(known),
                        size=record.size,
                    )
            with opened as source:
                return self._store.add_layer(
                    source, lease=self._lease, parents=parents, as_it_is=True
                )

    def _complete(self, entry: Descriptor, *, unpack: bool, depth: int) -> None:
        """Everything of one image at least is there; raises ImageError."""
        if depth > _DEEPEST or len(self._seen) > _MOST:
            raise _too_deep()
        self._seen.add(entry.digest)
        self.have(entry.digest)
        content = self._store.blobs.read(entry.digest)
        if entry.media_type in INDEXES:
            index = Index.from_bytes(content)
            children = [child for child in index.manifests if self.have(child.digest)]
            if not children:
                raise ImageError(f"the index {entry.digest} comes without any of its images")
            own = host_platform()
            for child in children:
                if child.digest in self._seen:
                    continue  # named once more, a thousand times maybe
                fits = child.platform is None or child.platform.architecture == own.architecture
                self._complete(child, unpack=unpack and fits, depth=depth + 1)
            return
        manifest = Manifest.from_bytes(content)
        if not self.have(manifest.config.digest):
            raise ImageError(f"blob {manifest.config.digest} is missing in the archive")
        if unpack and manifest.config.media_type in (CONFIG, DOCKER_CONFIG):
            self._unpack(manifest)
        for part in manifest.layers:
            if not self.have(part.digest):
                raise ImageError(f"blob {part.digest} is missing in the archive")

    def _unpack(self, manifest: Manifest) -> None:
        """Store and unpack at once those layers that are neither here yet."""
        config = ImageConfig.from_bytes(self._store.blobs.read(manifest.config.digest))
        chains = chain_ids(config.diff_ids)
        if len(chains) != len(manifest.layers):
            return  # the store says so when it is to unpack the image
        for number, descriptor in enumerate(manifest.layers):
            diff_id, parents = config.diff_ids[number], chains[:number]
            if self._added(descriptor, diff_id, chains[number], parents):
                continue
            # What lies below must be unpacked before anything on top of it.
            if not self.have(descriptor.digest):
                return
            self._store.layers.ensure(descriptor, diff_id, parents=parents, lease=self._lease)

    def _added(
        self, descriptor: Descriptor, diff_id: str, chain: str, parents: Sequence[str]
    ) -> bool:
        """Store and unpack a layer that is not here in any form; False where it is, or where it
        cannot be done at once."""
        blob = self._find(descriptor.digest)
        if blob is None or algorithm(descriptor.digest) != "sha256":
            return False
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._store.layers.exclusive(chain))
            if self._store.layers.record(chain) is not None:
                return False
            if self._store.blobs.claim(descriptor.digest, self._lease):
                return False
            layer = self._store.add_layer(
                stack.enter_context(blob.opened()),
                lease=self._lease,
                parents=parents,
                expected=descriptor,
                as_it_is=True,
            )
        if layer.diff_id != diff_id:
            raise ImageError(
                f"layer {descriptor.digest} unpacks to {layer.diff_id}, not to {diff_id}"
            )
        return True


def enter(
    store: ImageStore, found: list[tuple[Descriptor, list[str]]], name: str | None
) -> tuple[Image, ...]:
    """Enter what was taken into the store's index; `name` is for a single image without one."""
    if not found:
        raise ImageError("the archive holds no image")
    if name is not None and len(found) == 1 and not found[0][1]:
        found = [(found[0][0], [name])]
    images: dict[str, Image] = {}
    for descriptor, names in found:
        store.image_of(descriptor)  # nothing gets a name that leads nowhere
        store.add_names(descriptor, names)
        image = store.resolve(descriptor.digest)
        store.layer_paths(image)
        images[image.digest] = image
    return tuple(images.values())


def _bare(entry: Descriptor) -> Descriptor:
    """The entry without its names."""
    return Descriptor(
        media_type=entry.media_type,
        digest=entry.digest,
        size=entry.size,
        platform=entry.platform,
        annotations={
            key: value
            for key, value in entry.annotations.items()
            if key not in (FULL_NAME, REFERENCE_NAME)
        },
    )


def _names(entry: Descriptor) -> Sequence[str]:
    """The names that an entry of a layout carries; a tag alone is none."""
    full = entry.annotations.get(FULL_NAME)
    name = entry.annotations.get(REFERENCE_NAME)
    for text in (full, name):
        if text and (text is full or "/" in text or ":" in text):
            return [Reference.parse(text).canonical]
    return []


def _too_deep() -> ImageError:
    return ImageError(f"its indexes are nested deeper than {_DEEPEST}, or name over {_MOST} others")
