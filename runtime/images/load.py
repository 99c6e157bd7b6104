"""Loading images from an archive: an OCI layout, or what `docker save` made.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.errors import ImageError
from runtime.images.archive_file import ArchiveFile, Member
from runtime.images.intake import Intake, enter
from runtime.images.leases import Lease
from runtime.images.merged import split
from runtime.images.store import Image, ImageStore
from runtime.images.streams import CHUNK, LONGEST_MAGIC, Prefixed, decompressed, media_type
from runtime.images.tar_reader import FILE, LINK, SYMLINK, Entry, Source, TarReader
from runtime.oci.descriptor import Descriptor
from runtime.oci.digest import chain_ids, is_digest
from runtime.oci.documents import MAX_DOCUMENT
from runtime.oci.image_config import ImageConfig
from runtime.oci.manifest import Index

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
    while len(start) < LONGEST_MAGIC and (piece := source.read(CHUNK)):
        start += piece
    plain = decompressed(Prefixed(start, source), media_type(start))
    with store.lease() as lease:
        loading = _Loading(store, lease)
        loading.read(plain)
        return loading.finish(name)


class _Loading:
    def __init__(self, store: ImageStore, lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self._intake = Intake(store, lease, lambda digest: self._blobs.get(digest))
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
            found = self._intake.images(Index.from_bytes(self.documents["index.json"]))
        elif "manifest.json" in self.documents:
            found = self._docker(self.documents["manifest.json"])
        else:
            raise ImageError("the archive is neither an OCI layout nor made by docker save")
        return enter(self._store, found, name)

    def _member(self, entry: Entry, reader: TarReader) -> None:
        name = entry.name.removeprefix(b"./")
        blob = _BLOB.match(entry.name)
        if blob is not None and entry.kind is FILE:
            digest = f"{blob[1].decode()}:{blob[2].decode()}"
            if is_digest(digest):
                self._intake.take(digest, entry.size, _Chunks(reader))
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
            layer = self._intake.layer(
                self._opened(path),
                config.diff_ids[number],
                parents=chains[:number],
                digest=self._digest_of(path),
            )
            if layer.diff_id != config.diff_ids[number]:
                raise ImageError(f"layer {path} is {layer.diff_id}, not {config.diff_ids[number]}")
            layers.append(layer)
        names = [str(tag) for tag in entry.get("RepoTags") or ()]
        image = self._store.create_image(config, layers, names, lease=self._lease, content=content)
        return self._store.descriptor(image), names

    def _digest_of(self, path: str) -> str | None:
        """The digest of a member, where its name says it."""
        name = b"/".join(split(os.fsencode(path)))
        blob = _BLOB.match(self._links.get(name, name))
        digest = "" if blob is None else f"{blob[1].decode()}:{blob[2].decode()}"
        return digest if is_digest(digest) else None

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
        digest = self._digest_of(path)
        if digest is not None:
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
