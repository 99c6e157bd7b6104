"""ADD of an archive: recognised by its content, unpacked into the destination.

Source: BuildKit reference.md ("Adding local tar archives", "ADD --unpack"): tar, plain or
compressed with gzip, bzip2, xz; zstd too.
"""

from __future__ import annotations

import io

from runtime.build.copying import Owner
from runtime.errors import ImageError
from runtime.images.merged import Parts
from runtime.images.streams import LONGEST_MAGIC, decompressed, media_type
from runtime.images.tar_reader import BLOCK, Source
from runtime.images.unpack import Limits, extract_archive
from runtime.images.upper import UpperTree


def is_archive(file: io.FileIO) -> bool:
    """True for a regular file that holds a tar, compressed or not."""
    try:
        plain = _plain(file)
        start = b""
        while len(start) < BLOCK and (piece := plain.read(BLOCK)):
            start += piece
    except ImageError:
        return False  # a damaged archive is a file like any other
    return len(start) >= BLOCK and _is_tar(start[:BLOCK])


def extract(
    file: io.FileIO,
    tree: UpperTree,
    parts: Parts,
    owner: Owner | None,
    limits: Limits | None = None,
) -> None:
    """Unpack the archive into the directory `parts` of the new layer."""
    ids = None if owner is None else (owner.uid, owner.gid)
    extract_archive(_plain(file), tree, parts, owner=ids, limits=limits)


def _plain(file: io.FileIO) -> Source:
    file.seek(0)
    kind = media_type(file.read(LONGEST_MAGIC))
    file.seek(0)
    return decompressed(file, kind)


def _is_tar(block: bytes) -> bool:
    """A tar header: the magic, or at least the checksum, is right."""
    digits = block[148:156].strip(b" \0")
    if not digits or set(digits) - set(b"01234567"):
        return False
    return int(digits, 8) == 256 + sum(block) - sum(block[148:156])
