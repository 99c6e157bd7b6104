"""Loading images from an OCI layout (an archive or a directory) or from `docker save`.

Blobs that are named by their digest go straight into the store, verified; older archives of
Docker, which name layers otherwise, are laid out beside first. No name in the archive is
ever used as a path of this machine.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import ImageError
from runtime.images.leases import Lease
from runtime.images.merged import MergedTree, split
from runtime.images.reference import Reference
from runtime.images.save import FULL_NAME
from runtime.images.store import Image, ImageStore
from runtime.images.streams import CHUNK, Prefixed, decompressed, media_type
from runtime.images.tar_reader import FILE, LINK, SYMLINK, Entry, Source, TarReader
from runtime.oci.descriptor import INDEXES, MANIFESTS, REFERENCE_NAME, Descriptor
from runtime.oci.digest import algorithm, chain_ids, is_digest
from runtime.oci.documents import MAX_DOCUMENT
from runtime.oci.image_config import ImageConfig
from runtime.oci.manifest import Index, Manifest

_BLOB = re.compile(rb"(?:\./)?blobs/(sha256|sha512)/([0-9a-f]+)\Z")
_DOCUMENT = re.compile(rb"[^/]+\.json\Z")


def load(store: ImageStore, source: Source, *, name: str | None = None) -> tuple[Image, ...]:
    """Load every image of an archive, plain or compressed, and give them their names.

    `name` is for an archive whose only image has none. Raises ImageError.
    """
    start = b""
    while len(start) < 6 and (piece := source.read(CHUNK)):
        start += piece
    plain = decompressed(Prefixed(start, source), media_type(start))
    with store.lease() as lease:
        loading = _Loading(store, lease)
        loading.read(plain)
        return loading.finish(name)


def load_directory(store: ImageStore, path: Path, *, name: str | None = None) -> tuple[Image, ...]:
    """Load every image of an OCI layout in a directory."""
    with store.lease() as lease, MergedTree((path,)) as tree:
        loading = _Loading(store, lease)
        for document in ("index.json", "oci-layout", "manifest.json"):
            content = tree.read(document.encode(), limit=MAX_DOCUMENT)
            if content is not None:
                loading.documents[document] = content
        if "index.json" not in loading.documents:
            raise ImageError(f"{path} is not an OCI image layout: it has no index.json")
        for kind in (b"sha256", b"sha512"):
            for blob in tree.names((b"blobs", kind)):
                digest = f"{kind.decode()}:{os.fsdecode(blob)}"
                found = tree.entry((b"blobs", kind, blob))
                if found is not None and is_digest(digest):
                    fd = found.open()
                    with os.fdopen(fd, "rb", buffering=0) as file:
                        loading.take_blob(digest, found.status.st_size, file)
        return loading.finish(name)


class _Loading:
    def __init__(self, store: ImageStore, lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self.documents: dict[str, bytes] = {}
        self._files: dict[bytes, Path] = {}
        self._links: dict[bytes, bytes] = {}

    def read(self, source: Source) -> None:
        reader = TarReader(source)
        for entry in reader:
            self._member(entry, reader)
        reader.drain()

    def finish(self, name: str | None) -> tuple[Image, ...]:
        """Enter what was read into the store's index."""
        if "index.json" in self.documents:
            found = self._layout(Index.from_bytes(self.documents["index.json"]))
        elif "manifest.json" in self.documents:
            found = self._docker(self.documents["manifest.json"])
        else:
            raise ImageError("the archive is neither an OCI layout nor made by docker save")
        if not found:
            raise ImageError("the archive holds no image")
        if name is not None and len(found) == 1 and not found[0][1]:
            found = [(found[0][0], [name])]
        images: dict[str, Image] = {}
        for descriptor, names in found:
            self._store.add_names(descriptor, names)
            image = self._store.resolve(descriptor.digest)
            self._store.layer_paths(image)
            images[image.digest] = image
        return tuple(images.values())

    def take_blob(self, digest: str, size: int, source: Source) -> None:
        """Put a blob of a known digest into the store, verified."""
        if self._store.blobs.claim(digest, self._lease):
            return
        with self._store.blobs.writing(self._lease, algorithm(digest)) as writer:
            while piece := source.read(CHUNK):
                writer.write(piece)
            expected = Descriptor(media_type="", digest=digest, size=size)
            writer.commit("", expected=expected)

    def _member(self, entry: Entry, reader: TarReader) -> None:
        name = entry.name.removeprefix(b"./")
        blob = _BLOB.match(entry.name)
        if blob is not None and entry.kind is FILE:
            digest = f"{blob[1].decode()}:{blob[2].decode()}"
            if is_digest(digest):
                self.take_blob(digest, entry.size, _Chunks(reader))
                return
        if entry.kind is SYMLINK:
            # Old archives give equal layers once: <id>/layer.tar -> ../<other>/layer.tar
            self._links[name] = os.path.normpath(
                os.path.join(os.path.dirname(name), entry.linkname)
            )
        elif entry.kind is LINK:
            self._links[name] = entry.linkname.removeprefix(b"./")
        elif entry.kind is FILE and _DOCUMENT.match(name) and entry.size <= MAX_DOCUMENT:
            content = b"".join(bytes(piece) for piece in reader.chunks())
            self.documents[os.fsdecode(name)] = content
        elif entry.kind is FILE:
            path = self._lease.path("member")
            with open(path, "xb") as file:
                for piece in reader.chunks():
                    file.write(piece)
            self._files[name] = path

    # OCI

    def _layout(self, index: Index) -> list[tuple[Descriptor, list[str]]]:
        found: dict[str, tuple[Descriptor, list[str]]] = {}
        for entry in index.manifests:
            if entry.media_type not in MANIFESTS | INDEXES:
                continue  # an artifact of another kind
            self._complete(entry)
            rest = {
                key: value
                for key, value in entry.annotations.items()
                if key not in (FULL_NAME, REFERENCE_NAME)
            }
            bare = Descriptor(
                media_type=entry.media_type,
                digest=entry.digest,
                size=entry.size,
                platform=entry.platform,
                annotations=rest,
            )
            _, names = found.setdefault(entry.digest, (bare, []))
            names += _names(entry)
        return list(found.values())

    def _complete(self, entry: Descriptor) -> None:
        """Everything of one image at least is there; raises ImageError."""
        content = self._store.blobs.read(entry.digest)
        if entry.media_type in INDEXES:
            children = [
                child
                for child in Index.from_bytes(content).manifests
                if self._store.blobs.claim(child.digest, self._lease)
            ]
            if not children:
                raise ImageError(f"the index {entry.digest} comes without any of its images")
            for child in children:
                self._complete(child)
            return
        manifest = Manifest.from_bytes(content)
        for part in (manifest.config, *manifest.layers):
            if not self._store.blobs.claim(part.digest, self._lease):
                raise ImageError(f"blob {part.digest} is missing in the archive")

    # Docker

    def _docker(self, content: bytes) -> list[tuple[Descriptor, list[str]]]:
        try:
            entries = json.loads(content)
            assert isinstance(entries, list)
            return [self._docker_image(entry) for entry in entries]
        except (ValueError, AssertionError, TypeError, KeyError) as exc:
            raise ImageError("the archive's manifest.json is damaged") from exc

    def _docker_image(self, entry: dict[str, Any]) -> tuple[Descriptor, list[str]]:
        content = self._content(str(entry["Config"]))
        config = ImageConfig.from_bytes(content)
        paths = [str(path) for path in entry["Layers"]]
        if len(paths) != len(config.diff_ids):
            raise ImageError(
                f"the archive names {len(paths)} layers for an image of {len(config.diff_ids)}"
            )
        layers = []
        chains = chain_ids(config.diff_ids)
        for number, path in enumerate(paths):
            with self._opened(path) as file:
                layer = self._store.add_layer(file, lease=self._lease, parents=chains[:number])
            if layer.diff_id != config.diff_ids[number]:
                raise ImageError(f"layer {path} is {layer.diff_id}, not {config.diff_ids[number]}")
            layers.append(layer)
        image = self._store.create_image(config, layers, lease=self._lease, content=content)
        names = [str(tag) for tag in entry.get("RepoTags") or ()]
        return self._store.descriptor(image), names

    def _content(self, path: str) -> bytes:
        if "/" not in path and path in self.documents:
            return self.documents[path]
        with self._opened(path) as file:
            return file.read(MAX_DOCUMENT)

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[io.FileIO]:
        """A member, by the archive's own name for it."""
        name = b"/".join(split(os.fsencode(path)))
        name = self._links.get(name, name)
        blob = _BLOB.match(name)
        if blob is not None:
            with self._store.blobs.open(f"{blob[1].decode()}:{blob[2].decode()}") as stored:
                yield stored
        elif name in self._files:
            with open(self._files[name], "rb", buffering=0) as file:
                yield file
        else:
            raise ImageError(f"the archive lacks {path}")


class _Chunks:
    """The content of the reader's current member as a source."""

    def __init__(self, reader: TarReader) -> None:
        self._chunks = reader.chunks()

    def read(self, size: int, /) -> bytes:
        return bytes(next(self._chunks, b""))


def _names(entry: Descriptor) -> Sequence[str]:
    """The names that an entry of a layout carries; a tag alone is none."""
    full = entry.annotations.get(FULL_NAME)
    name = entry.annotations.get(REFERENCE_NAME)
    for text in (full, name):
        if text and (text is full or "/" in text or ":" in text):
            return [Reference.parse(text).canonical]
    return []
