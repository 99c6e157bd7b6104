"""Reads files that containers may have put where they are: by their directory and name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_PIECE = 2**20


@contextlib.contextmanager
def regular_file(directory: int, name: str) -> Iterator[IO[bytes] | None]:
    """The file, open for reading; None for anything else. A container may have put a device there
    that does something as soon as it is opened, so it is looked at before."""
    try:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        yield None
        return
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            yield None
            return
        with open(f"/proc/self/fd/{place}", "rb") as file:
            yield file
    finally:
        os.close(place)


def holds_blob(directory: int, name: str, wanted: str) -> bool:
    """Whether a file is one that git calls `wanted`, however large it is."""
    with regular_file(directory, name) as file:
        if file is None:
            return False
        kind = hashlib.sha1 if len(wanted) == 40 else hashlib.sha256
        size = os.fstat(file.fileno()).st_size
        digest = kind(b"blob %d\0" % size)
        while size > 0 and (piece := file.read(min(size, _PIECE))):
            digest.update(piece)
            size -= len(piece)
        return digest.hexdigest() == wanted


def same_content(directory: int, name: str, source: Path) -> bool:
    """Whether it is a file that holds what `source` does."""
    with regular_file(directory, name) as ours, source.open("rb") as wanted:
        while ours is not None:
            one, other = ours.read(2**17), wanted.read(2**17)
            if one != other:
                return False
            if not one:
                return True
        return False
