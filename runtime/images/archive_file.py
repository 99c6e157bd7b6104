"""An archive that is a plain file: its members are read where they stand, in any order."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from runtime.errors import ImageError
from runtime.images.streams import LONGEST_MAGIC, media_type
from runtime.images.tar_reader import Source
from runtime.oci.descriptor import LAYER


class ArchiveFile:
    """A source that can pass over what is not wanted; `fd` stays the caller's."""

    def __init__(self, fd: int, start: int) -> None:
        self._fd = fd
        self._start = start
        self._position = start

    @classmethod
    def of(cls, source: Source) -> ArchiveFile | None:
        """The file behind `source`, None where it is none, or is compressed as a whole."""
        try:
            fd = source.fileno()  # type: ignore[attr-defined]  # whether it has one is asked
            start = source.tell()  # type: ignore[attr-defined]
        except (AttributeError, OSError):
            return None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        found = media_type(os.pread(fd, LONGEST_MAGIC, start))
        return cls(fd, start) if found == LAYER else None

    def read(self, size: int, /) -> bytes:
        piece = os.pread(self._fd, size, self._position)
        self._position += len(piece)
        return piece

    def skip(self, size: int) -> None:
        """Pass over bytes; raises ImageError where there are fewer."""
        self._position += size
        if self._position > os.fstat(self._fd).st_size:
            raise ImageError("tar: the archive is cut")

    def member(self, offset: int, size: int) -> Member:
        """The `size` bytes at `offset` from where the archive begins."""
        return Member(fd=self._fd, offset=self._start + offset, size=size)


@dataclass(slots=True, kw_only=True)
class Member:
    """Bytes of a file as a source, which may be read several times over by `again`."""

    fd: int
    offset: int
    size: int
    position: int = 0

    def read(self, size: int, /) -> bytes:
        wanted = min(size, self.size - self.position)
        piece = os.pread(self.fd, wanted, self.offset + self.position) if wanted else b""
        if wanted and not piece:
            raise ImageError("tar: the archive is cut")
        self.position += len(piece)
        return piece

    @contextlib.contextmanager
    def opened(self) -> Iterator[Member]:
        """The member from its beginning; as `intake.Blob`."""
        yield self.again()

    def again(self) -> Member:
        return Member(fd=self.fd, offset=self.offset, size=self.size)
