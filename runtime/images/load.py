"""Loading images from an OCI layout (an archive or a directory) or from `docker save`.

Of an archive that is a plain file the members are found first: every layer is then stored,
verified and unpacked in one pass over it. Of a stream the blobs that are named by their digest
go straight into the store, verified; what older archives of Docker name otherwise is laid out
beside. Layers are kept as they are, compressed or not. No name in the archive is ever used as
a path of this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import ImageError
from runtime.images.archive_file import ArchiveFile, Member
from runtime.images.leases import Lease
from runtime.images.merged import MergedTree, split
from runtime.images.reference import Reference
from runtime.images.save import FULL_NAME
from runtime.images.store import Image, ImageStore, host_platform
from runtime.images.streams import CHUNK, Prefixed, decompressed, media_type
from runtime.images.tar_reader import FILE, LINK, SYMLINK, Entry, Source, TarReader
from runtime.oci.descriptor import (
    CONFIG,
    DOCKER_CONFIG,
    INDEXES,
    MANIFESTS,
    REFERENCE_NAME,
    Descriptor,
)
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
    file = ArchiveFile.of(source)
    if file is not None:
        with store.lease() as lease:
            loading = _Loading(store, lease)
            loading.survey(file)
            return loading.finish(name)
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
        self._members: dict[bytes, Member] = {}
        self._blobs: dict[str, Member] = {}
        self._links: dict[bytes, bytes] = {}

    def read(self, source: Source) -> None:
        reader = TarReader(source)
        for entry in reader:
            self._member(entry, reader)
        reader.drain()

    def survey(self, file: ArchiveFile) -> None:
        """Find out what stands where, and read the documents."""
        reader = TarReader(file)
        for entry in reader:
            name = entry.name.removeprefix(b"./")
            blob = _BLOB.match(entry.name)
            digest = f"{blob[1].decode()}:{blob[2].decode()}" if blob is not None else ""
            if entry.kind is not FILE or entry.sparse is not None or self._is_document(name, entry):
                self._member(entry, reader)
                continue
            member = file.member(reader.offset, entry.size)
            if is_digest(digest):
                self._blobs[digest] = member
            else:
                self._members[name] = member

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
        elif self._is_document(name, entry):
            content = b"".join(bytes(piece) for piece in reader.chunks())
            self.documents[os.fsdecode(name)] = content
        elif entry.kind is FILE:
            path = self._lease.path("member")
            with open(path, "xb") as file:
                for piece in reader.chunks():
                    file.write(piece)
            self._files[name] = path

    @staticmethod
    def _is_document(name: bytes, entry: Entry) -> bool:
        is_named = entry.kind is FILE and _DOCUMENT.match(name) is not None
        return is_named and entry.size <= MAX_DOCUMENT

    def _have(self, digest: str) -> bool:
        """Have a blob in the store, if the archive holds it or it is there."""
        if self._store.blobs.claim(digest, self._lease):
            return True
        member = self._blobs.get(digest)
        if member is None:
            return False
        self.take_blob(digest, member.size, member.again())
        return True

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

    def _complete(self, entry: Descriptor, *, unpack: bool = True) -> None:
        """Everything of one image at least is there; raises ImageError."""
        self._have(entry.digest)
        content = self._store.blobs.read(entry.digest)
        if entry.media_type in INDEXES:
            index = Index.from_bytes(content)
            children = [child for child in index.manifests if self._have(child.digest)]
            if not children:
                raise ImageError(f"the index {entry.digest} comes without any of its images")
            own = host_platform()
            for child in children:
                fits = child.platform is None or child.platform.architecture == own.architecture
                self._complete(child, unpack=unpack and fits)
            return
        manifest = Manifest.from_bytes(content)
        if not self._have(manifest.config.digest):
            raise ImageError(f"blob {manifest.config.digest} is missing in the archive")
        if unpack and manifest.config.media_type in (CONFIG, DOCKER_CONFIG):
            self._unpack(manifest)
        for part in manifest.layers:
            if not self._have(part.digest):
                raise ImageError(f"blob {part.digest} is missing in the archive")

    def _unpack(self, manifest: Manifest) -> None:
        """Store and unpack at once those layers that are neither here yet."""
        config = ImageConfig.from_bytes(self._store.blobs.read(manifest.config.digest))
        chains = chain_ids(config.diff_ids)
        if len(chains) != len(manifest.layers):
            return  # the store says so when it is to unpack the image
        for number, descriptor in enumerate(manifest.layers):
            member = self._blobs.get(descriptor.digest)
            if (
                member is None
                or algorithm(descriptor.digest) != "sha256"
                or self._store.layers.record(chains[number]) is not None
                or self._store.blobs.claim(descriptor.digest, self._lease)
            ):
                # What lies below must be unpacked before anything on top of it.
                if not self._have(descriptor.digest):
                    return
                self._store.layers.ensure(
                    descriptor,
                    config.diff_ids[number],
                    parents=chains[:number],
                    lease=self._lease,
                )
                continue
            layer = self._store.add_layer(
                member.again(),
                lease=self._lease,
                parents=chains[:number],
                expected=descriptor,
                as_it_is=True,
            )
            if layer.diff_id != config.diff_ids[number]:
                raise ImageError(
                    f"layer {descriptor.digest} unpacks to {layer.diff_id}, "
                    f"not to {config.diff_ids[number]}"
                )

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
                layer = self._store.add_layer(
                    file, lease=self._lease, parents=chains[:number], as_it_is=True
                )
            if layer.diff_id != config.diff_ids[number]:
                raise ImageError(f"layer {path} is {layer.diff_id}, not {config.diff_ids[number]}")
            layers.append(layer)
        names = [str(tag) for tag in entry.get("RepoTags") or ()]
        image = self._store.create_image(config, layers, names, lease=self._lease, content=content)
        return self._store.descriptor(image), names

    def _content(self, path: str) -> bytes:
        if "/" not in path and path in self.documents:
            return self.documents[path]
        with self._opened(path) as file:
            content = b""
            while len(content) < MAX_DOCUMENT and (piece := file.read(MAX_DOCUMENT - len(content))):
                content += piece
            return content

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[Source]:
        """A member, by the archive's own name for it."""
        name = b"/".join(split(os.fsencode(path)))
        name = self._links.get(name, name)
        blob = _BLOB.match(name)
        if blob is not None:
            digest = f"{blob[1].decode()}:{blob[2].decode()}"
            if digest in self._blobs:
                yield self._blobs[digest].again()
                return
            with self._store.blobs.open(digest) as stored:
                yield stored
        elif name in self._members:
            yield self._members[name].again()
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
