"""Saving images to an archive that both OCI tools and `docker load` read.

Source: OCI image-spec image-layout.md; Docker image-spec v1.2 ("Combined Image JSON +
Filesystem Changeset Format": manifest.json). One archive holds both descriptions of the same
blobs, as Docker's own `save` writes it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

from runtime.images.leases import Lease
from runtime.images.reference import Reference
from runtime.images.store import Image, ImageStore
from runtime.images.tar_reader import DIRECTORY, FILE, Entry
from runtime.images.tar_writer import END, header
from runtime.oci.descriptor import INDEXES, REFERENCE_NAME, Descriptor
from runtime.oci.digest import algorithm, encoded
from runtime.oci.manifest import Index, Manifest

FULL_NAME = "io.containerd.image.name"
"""Annotation with the whole reference; the OCI one then holds the tag alone."""

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1024 * 1024


def save(
    store: ImageStore, references: Sequence[str], sink: Callable[[bytes], object]
) -> tuple[Image, ...]:
    """Write images, each with the names that were asked for, to `sink`.

    An image asked for by ID is saved without a name. All platforms of an index that are in
    the store go along. Raises ImageNotFound.
    """
    with store.lease() as lease:
        images = [(store.resolve(reference), _tag_of(store, reference)) for reference in references]
        saving = _Saving(store, sink, lease)
        held = [saving.hold(image) for image, _ in images]
        saving.begin()
        for entry, (image, name) in zip(held, images, strict=True):
            saving.add(entry, image, name)
        saving.finish()
    return tuple(image for image, _ in images)


def _tag_of(store: ImageStore, reference: str) -> Reference | None:
    if not store.is_name(reference):
        return None
    parsed = Reference.parse(reference)
    return parsed.tagged if parsed.digest is None else None


class _Saving:
    def __init__(self, store: ImageStore, sink: Callable[[bytes], object], lease: Lease) -> None:
        self._lease = lease
        self._store = store
        self._sink = sink
        self._written: set[str] = set()
        self._entries: list[Descriptor] = []
        self._docker: dict[str, dict[str, object]] = {}

    def hold(self, image: Image) -> Descriptor:
        """Keep all that is to be written, whoever removes the image meanwhile; what its names
        point to."""
        top = self._store.descriptor(image)
        waiting = [top]
        held: set[str] = set()
        while waiting:
            entry = waiting.pop()
            if entry.digest in held or not self._store.blobs.claim(entry.digest, self._lease):
                continue  # not every platform was fetched
            held.add(entry.digest)
            content = self._store.blobs.read(entry.digest)
            if entry.media_type in INDEXES:
                waiting += Index.from_bytes(content).manifests
                continue
            manifest = Manifest.from_bytes(content)
            for part in (manifest.config, *manifest.layers):
                self._store.blobs.claim(part.digest, self._lease)
        return top

    def begin(self) -> None:
        for name in ("blobs/", "blobs/sha256/"):
            self._sink(_header(name, 0, kind=DIRECTORY, mode=0o755))

    def add(self, entry: Descriptor, image: Image, name: Reference | None) -> None:
        self._blobs(entry)
        annotations = (
            {}
            if name is None
            else {
                FULL_NAME: name.canonical,
                REFERENCE_NAME: name.tag or "",
            }
        )
        self._entries.append(dataclasses.replace(entry, annotations=annotations))
        known = self._docker.setdefault(
            image.id,
            {
                "Config": _path(image.id),
                "RepoTags": None,
                "Layers": [_path(layer.digest) for layer in image.manifest.layers],
            },
        )
        if name is not None:
            tags = known["RepoTags"]
            known["RepoTags"] = [*(tags if isinstance(tags, list) else []), name.familiar()]

    def finish(self) -> None:
        self._file("index.json", Index(manifests=tuple(self._entries)).to_bytes())
        self._file("manifest.json", json.dumps(list(self._docker.values())).encode())
        self._file("oci-layout", LAYOUT)
        self._sink(END)

    def _blobs(self, entry: Descriptor) -> None:
        if entry.digest in self._written:
            return
        content = self._store.blobs.read(entry.digest)
        self._blob(entry.digest)
        if entry.media_type in INDEXES:
            for child in Index.from_bytes(content).manifests:
                if self._store.blobs.has(child.digest):  # not every platform was fetched
                    self._blobs(child)
            return
        manifest = Manifest.from_bytes(content)
        self._blob(manifest.config.digest)
        for layer in manifest.layers:
            self._blob(layer.digest)

    def _blob(self, digest: str) -> None:
        if digest in self._written:
            return
        self._written.add(digest)
        size = self._store.blobs.size(digest)
        self._sink(_header(_path(digest), size))
        with self._store.blobs.open(digest) as file:
            while piece := file.read(_CHUNK):
                self._sink(piece)
        self._sink(bytes(-size % 512))

    def _file(self, name: str, content: bytes) -> None:
        self._sink(_header(name, len(content)) + content + bytes(-len(content) % 512))


def _path(digest: str) -> str:
    return f"blobs/{algorithm(digest)}/{encoded(digest)}"


def _header(name: str, size: int, *, kind: bytes = FILE, mode: int = 0o644) -> bytes:
    return header(
        Entry(name=name.encode(), kind=kind, mode=mode, uid=0, gid=0, size=size, mtime_ns=0)
    )
