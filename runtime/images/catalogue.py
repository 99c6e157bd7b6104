"""What the store's names and IDs lead to.

Documents are verified when they are first read, and remembered: a digest never means another
thing.
"""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass

from runtime.errors import ImageError, ImageNotFound
from runtime.images.blobs import Blobs
from runtime.images.layers import Layers
from runtime.images.layout_index import Entries, LayoutIndex, name_of
from runtime.images.platforms import choose, host_platform
from runtime.images.reference import Reference
from runtime.oci.descriptor import INDEXES, Descriptor, Platform
from runtime.oci.digest import chain_ids, is_digest
from runtime.oci.image_config import HistoryEntry, ImageConfig
from runtime.oci.manifest import Index, Manifest

_log = logging.getLogger(__name__)
_HEX = re.compile(r"[0-9a-f]{1,64}\Z")


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


@dataclass(frozen=True, slots=True)
class _Loaded:
    id: str
    manifest: Manifest
    config: ImageConfig


class Catalogue:
    """Looks up images; threads may share it."""

    def __init__(self, index: LayoutIndex, blobs: Blobs, layers: Layers) -> None:
        self._index = index
        self._blobs = blobs
        self._layers = layers
        self._mutex = threading.Lock()
        self._loaded: dict[tuple[str, str], _Loaded] = {}

    def resolve(self, reference: str, platform: Platform | None = None) -> Image:
        """The image of a name, a name with digest, or an image ID or its beginning.

        `platform` (None: this host's) chooses where that is an index. Raises ImageNotFound, and
        ImageError where the beginning of an ID fits several, or an index has not the platform.
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
        return self.image(found[0], images, platform)

    def list(self) -> Images:
        """All images, newest first; an image whose documents are damaged is left to `check`."""
        entries = self._index.entries()
        images: dict[str, Image] = {}
        for entry in entries:
            if entry.digest not in images:
                try:
                    images[entry.digest] = self.image(entry, entries)
                except ImageError as exc:
                    _log.warning("image %s is damaged: %s", entry.digest, exc)
        return sorted(images.values(), key=lambda image: image.created, reverse=True)

    def history(self, image: Image) -> tuple[HistoryLine, ...]:
        """How the image came to be, newest step first."""
        sizes = iter(self.layer_sizes(image.config, image.manifest))
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

    def forget_what_is_gone(self) -> None:
        """Remember no document whose blob was collected."""
        with self._mutex:
            self._loaded = {
                key: known for key, known in self._loaded.items() if self._blobs.has(key[0])
            }

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

    def is_name(self, reference: str) -> bool:
        """True where a name, not an ID, leads to an image."""
        if is_digest(reference):
            return False
        try:
            return bool(self._named(reference, self._index.entries()))
        except ImageError:
            return False

    def _id(self, entry: Descriptor) -> str | None:
        try:
            return self._load(entry).id
        except ImageError:
            return None  # `check` tells

    def _load(self, entry: Descriptor, platform: Platform | None = None) -> _Loaded:
        key = (entry.digest, str(platform or "") if entry.media_type in INDEXES else "")
        with self._mutex:
            known = self._loaded.get(key)
        if known is not None:
            return known
        content = self._blobs.read(entry.digest)
        if entry.media_type in INDEXES:
            chosen = choose(Index.from_bytes(content), platform or host_platform())
            content = self._blobs.read(chosen.digest)
        manifest = Manifest.from_bytes(content)
        config = ImageConfig.from_bytes(self._blobs.read(manifest.config.digest))
        loaded = _Loaded(manifest.config.digest, manifest, config)
        with self._mutex:
            self._loaded[key] = loaded
        return loaded

    def image(self, entry: Descriptor, entries: Entries, platform: Platform | None = None) -> Image:
        """The image of an entry of the index."""
        loaded = self._load(entry, platform)
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
            size=sum(self.layer_sizes(loaded.config, loaded.manifest)),
            created=loaded.config.created,
        )

    def layer_sizes(self, config: ImageConfig, manifest: Manifest) -> tuple[int, ...]:
        """Bytes of each layer: of its content where it is unpacked, else of its blob."""
        sizes = []
        for chain, descriptor in zip(chain_ids(config.diff_ids), manifest.layers, strict=False):
            record = self._layers.record(chain)
            sizes.append(descriptor.size if record is None else record.size)
        return tuple(sizes)
