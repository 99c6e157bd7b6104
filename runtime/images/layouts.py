"""OCI image layouts in directories, from which images are taken.

Source: OCI image-spec image-layout.md. Whoever made the directory may have put links and devices
into it: nothing of it is followed, and only plain files are read.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ImageError
from runtime.images.intake import Intake, enter
from runtime.images.leases import Lease
from runtime.images.merged import Found, MergedTree
from runtime.images.store import Image, ImageStore
from runtime.oci.descriptor import INDEXES, MANIFESTS, REFERENCE_NAME, Descriptor, Platform
from runtime.oci.digest import algorithm, encoded, is_digest
from runtime.oci.documents import MAX_DOCUMENT
from runtime.oci.manifest import Index

_PLACE = re.compile(r"(.+?)(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@([a-z0-9]+:[0-9a-f]+))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutPlace:
    """An image of a layout: by its tag, by its digest, or (neither) "latest" or the only one."""

    path: Path
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> LayoutPlace:
        """`path[:tag][@digest]`; raises ImageError."""
        match = _PLACE.match(text)
        if match is None or (match[3] is not None and not is_digest(match[3])):
            raise ImageError(f"{text!r} is not an image of a layout: write path[:tag][@digest]")
        return cls(path=Path(match[1]), tag=match[2], digest=match[3])

    def __str__(self) -> str:
        tag, digest = (f":{self.tag}" if self.tag else "", f"@{self.digest}" if self.digest else "")
        return f"oci-layout://{self.path}{tag}{digest}"


def load_directory(store: ImageStore, path: Path, *, name: str | None = None) -> tuple[Image, ...]:
    """Load every image of a layout, and give them their names; raises ImageError.

    `name` is for a layout whose only image has none.
    """
    with store.lease() as lease, _Layout.open(path) as layout:
        found = Intake(store, lease, layout.blob).images(layout.index())
        return enter(store, found, name)


def take_image(
    store: ImageStore, place: LayoutPlace, platform: Platform | None, *, lease: Lease
) -> Image:
    """Have one image of a layout in the store for as long as the lease, without a name.

    Of an image for several platforms it is that for `platform` (None: this host's). Raises
    ImageError.
    """
    with _Layout.open(place.path) as layout:
        entry = _chosen(layout.index(), place)
        return Intake(store, lease, layout.blob).image(entry, platform)


def _chosen(index: Index, place: LayoutPlace) -> Descriptor:
    """Source: buildx ("oci-layout://"): the tag "latest" unless one is given, else the only one."""
    images = [entry for entry in index.manifests if entry.media_type in MANIFESTS | INDEXES]
    if place.digest is not None:
        for entry in images:
            if entry.digest == place.digest:
                return entry
    else:
        for entry in images:
            if _tag(entry) == (place.tag or "latest"):
                return entry
        if place.tag is None and len({entry.digest for entry in images}) == 1:
            return images[0]
    there = ", ".join(dict.fromkeys(_tag(entry) or entry.digest for entry in images))
    wanted = place.digest or place.tag or "image tagged latest"
    raise ImageError(f"the layout {place.path} has no {wanted}; it has {there or 'no image'}")


def _tag(entry: Descriptor) -> str:
    """The tag of an entry, alone or at the end of a whole name."""
    name = entry.annotations.get(REFERENCE_NAME, "")
    return name.rpartition("/")[2].rpartition(":")[2]


class _Layout:
    def __init__(self, tree: MergedTree, path: Path) -> None:
        self._tree = tree
        self._path = path

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[_Layout]:
        try:
            tree = MergedTree((path,))
        except (FileNotFoundError, NotADirectoryError):
            raise ImageError(f"there is no OCI image layout at {path}") from None
        with tree:
            yield cls(tree, path)

    def index(self) -> Index:
        try:
            content = self._tree.read(b"index.json", limit=MAX_DOCUMENT)
        except OSError as exc:
            reason = (exc.strerror or "").lower()
            raise ImageError(f"cannot read index.json of {self._path}: {reason}") from exc
        if content is None:
            raise ImageError(f"{self._path} is not an OCI image layout: it has no index.json")
        return Index.from_bytes(content)

    def blob(self, digest: str) -> _LayoutBlob | None:
        parts = (b"blobs", algorithm(digest).encode(), encoded(digest).encode())
        found = self._tree.entry(parts)
        if found is None or not stat.S_ISREG(found.status.st_mode):
            return None
        return _LayoutBlob(found=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LayoutBlob:
    """A blob's file; as `intake.Blob`. Open it before the layout is asked for another."""

    found: Found

    @property
    def size(self) -> int:
        return self.found.status.st_size

    @contextlib.contextmanager
    def opened(self) -> Iterator[io.FileIO]:
        with os.fdopen(self.found.open(), "rb", buffering=0) as file:
            yield file
