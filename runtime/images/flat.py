"""Whole file systems as plain archives: `export` and `import`.

Source: Docker's documentation of `docker export` and `docker import`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from runtime.errors import ImageError
from runtime.images.merged import Found, MergedTree, Parts, check_depth
from runtime.images.pack import content_xattrs
from runtime.images.reference import Reference
from runtime.images.store import Image, ImageStore, host_platform
from runtime.images.streams import Prefixed
from runtime.images.tar_reader import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    CHUNK,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    Entry,
    Source,
)
from runtime.images.tar_writer import END, header
from runtime.oci.image_config import HistoryEntry, ImageConfig

_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}


def export(layers: Sequence[str | os.PathLike[str]], sink: Callable[[bytes], object]) -> None:
    """Write the merged tree of `layers`, lowest first, to `sink` as one archive.

    A container's own writable layer may be the last of them.
    """
    with MergedTree(layers) as tree:
        exporting = _Exporting(tree, sink)
        exporting.directory(())
        sink(END)


def import_archive(
    store: ImageStore,
    source: Source,
    references: Sequence[str],
    *,
    config: ImageConfig | None = None,
    message: str = "",
    created: str = "",
) -> Image:
    """Make an image of one layer from an archive, plain or compressed (gzip, zstd).

    `config` gives what it runs; `created` is RFC 3339. Raises ImageError, also for nothing at
    all: whoever was to write the archive has failed.
    """
    for reference in references:
        Reference.parse(reference)
    platform = host_platform()
    base = config or ImageConfig(
        architecture=platform.architecture, variant=platform.variant, os=platform.os
    )
    start = source.read(CHUNK)
    if not start:
        raise ImageError("the archive is empty")
    with store.lease() as lease:
        layer = store.add_layer(Prefixed(start, source), lease=lease)
        entry = HistoryEntry(created=created, created_by="import", comment=message)
        complete = base.replace(created=created, history=(entry,))
        return store.create_image(complete, (layer,), references, lease=lease)


class _Exporting:
    def __init__(self, tree: MergedTree, sink: Callable[[bytes], object]) -> None:
        self._tree = tree
        self._sink = sink
        self._links: dict[tuple[int, int], bytes] = {}

    def directory(self, parts: Parts) -> None:
        check_depth(parts)
        for name in self._tree.names(parts):
            here = (*parts, name)
            found = self._tree.entry(here)
            if found is None or stat.S_ISSOCK(found.status.st_mode):
                continue
            self._member(here, found)
            if found.is_directory:
                self.directory(here)

    def _member(self, here: Parts, found: Found) -> None:
        status = found.status
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        path = b"/".join(here)
        entry = Entry(
            name=path + (b"/" if kind is DIRECTORY else b""),
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            size=0,
            mtime_ns=status.st_mtime_ns - status.st_mtime_ns % 1_000_000_000,
        )
        if kind is not DIRECTORY and status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first is not path:
                entry.kind, entry.linkname = LINK, first
                self._sink(header(entry))
                return
        if kind is SYMLINK:
            entry.linkname = found.readlink()
        elif kind is CHARACTER or kind is BLOCK_DEVICE:
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if kind is not FILE:
            self._sink(header(entry))
            return
        fd = found.open()
        try:
            self._content(fd, entry)
        finally:
            os.close(fd)

    def _content(self, fd: int, entry: Entry) -> None:
        entry.size = left = os.fstat(fd).st_size
        entry.xattrs = content_xattrs(fd)
        self._sink(header(entry))
        while left:
            # A running container may cut its file: the archive must keep its promise.
            piece = os.read(fd, min(left, CHUNK)) or bytes(min(left, CHUNK))
            left -= len(piece)
            self._sink(piece)
        self._sink(bytes(-entry.size % BLOCK))
