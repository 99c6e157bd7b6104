"""ADD of a local archive: recognised by its content, unpacked into the destination.

Source: BuildKit reference.md ("Adding local tar archives"): tar, plain or compressed with
gzip, bzip2, xz; zstd too.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import stat

from runtime.build.copying import CopyRefused, Owner
from runtime.build.sources import Item, SourceTree
from runtime.errors import ImageError
from runtime.images.merged import split
from runtime.images.streams import gunzip, unzstd
from runtime.images.tar_reader import BLOCK, Source
from runtime.images.unpack import extract_archive
from runtime.images.upper import UpperTree

_MAGIC = 6


def is_archive(source: SourceTree, item: Item) -> bool:
    """True for a file that holds a tar, compressed or not."""
    if not stat.S_ISREG(item.status.st_mode):
        return False
    fd = _open(source, item)
    with io.FileIO(fd, "rb") as file:
        try:
            plain = _plain(file)
            start = b""
            while len(start) < BLOCK and (piece := plain.read(BLOCK)):
                start += piece
        except ImageError:
            return False  # a damaged archive is a file like any other
    return len(start) >= BLOCK and _is_tar(start[:BLOCK])


def extract(
    source: SourceTree, item: Item, tree: UpperTree, path: str, owner: Owner | None
) -> None:
    """Unpack the archive into the directory `path` of the new layer."""
    fd = _open(source, item)
    with io.FileIO(fd, "rb") as file:
        extract_archive(
            _plain(file),
            tree,
            split(os.fsencode(path)),
            owner=None if owner is None else (owner.uid, owner.gid),
        )


def _open(source: SourceTree, item: Item) -> int:
    found = source.tree.entry(item.parts)
    if found is None:
        raise CopyRefused("a file vanished while it was read")
    return found.open()


def _plain(file: io.FileIO) -> Source:
    start = file.read(_MAGIC)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gunzip(file)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return unzstd(file)
    if start.startswith(b"BZh"):
        return _Checked(bz2.BZ2File(file), "bzip2")
    if start.startswith(b"\xfd7zXZ\0"):
        return _Checked(lzma.LZMAFile(file), "xz")
    return file


class _Checked:
    """Turns the standard library's several errors for a damaged stream into one of ours."""

    def __init__(self, inner: bz2.BZ2File | lzma.LZMAFile, name: str) -> None:
        self._inner = inner
        self._name = name

    def read(self, size: int, /) -> bytes:
        try:
            return self._inner.read(size)
        except (OSError, EOFError, lzma.LZMAError) as exc:
            raise ImageError(f"the {self._name} stream is damaged") from exc


def _is_tar(block: bytes) -> bool:
    """A tar header: the magic, or at least the checksum, is right."""
    digits = block[148:156].strip(b" \0")
    if not digits or set(digits) - set(b"01234567"):
        return False
    return int(digits, 8) == 256 + sum(block) - sum(block[148:156])
