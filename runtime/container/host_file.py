"""A file of the host that is to be copied into a container, held open while it is."""

from __future__ import annotations

import errno
import os
import stat
from typing import Self

from runtime.errors import FileRefused
from runtime.linux.copying import copy_content, copy_sparse

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SMALL = 256 * 1024


class HostFile:
    """A regular file, a directory or a symbolic link, with `status` as it was when opened.

    `link` is what a symbolic link says. Raises FileRefused for everything else, and for what is
    gone or cannot be read.
    """

    __slots__ = ("_fd", "link", "path", "status")

    def __init__(self, path: str) -> None:
        self.path = path
        self.link: str | None = None
        self._fd = -1
        try:
            self._fd = os.open(path, _READ)
            self.status = os.fstat(self._fd)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise FileRefused(_why_unreadable(error)) from error
            self._look_without_opening()
        mode = self.status.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or self.link is not None):
            self.close()
            raise FileRefused("it is neither a file, a directory nor a link")

    def _look_without_opening(self) -> None:
        try:
            self.status = os.lstat(self.path)
            if stat.S_ISLNK(self.status.st_mode):
                self.link = os.readlink(self.path)
        except OSError as error:
            raise FileRefused(_why_unreadable(error)) from error

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    def copy_to(self, target: int, *, holes: bool = True) -> None:
        """Write the content to the open `target`, from where it stands; with `holes` that is an
        empty file. Raises FileRefused where the content changed meanwhile, OSError."""
        size = self.status.st_size
        os.lseek(self._fd, 0, os.SEEK_SET)
        if size <= _SMALL:
            copied = _copy_small(self._fd, target, size)
        elif holes and self.status.st_blocks * 512 < size:
            copy_sparse(self._fd, target, size)
            copied = size
        else:
            copied = copy_content(self._fd, target, size + 1)
        now = os.fstat(self._fd)
        if (copied, now.st_size, now.st_mtime_ns) != (size, size, self.status.st_mtime_ns):
            raise FileRefused("it changed while it was read")

    def same_content(self, other: int) -> bool:
        """Whether the open file `other`, of the same size, has the same bytes."""
        offset = 0
        while True:
            ours = os.pread(self._fd, _SMALL, offset)
            if ours != os.pread(other, len(ours) or 1, offset):
                return False
            if not ours:
                return True
            offset += len(ours)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _copy_small(source: int, target: int, size: int) -> int:
    copied = 0
    # One byte more than there should be shows that it grows.
    while copied <= size and (piece := os.read(source, size + 1 - copied)):
        copied += len(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(target, view) :]
    return copied


def _why_unreadable(error: OSError) -> str:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "it is gone"
    return f"it cannot be read: {(error.strerror or str(error)).lower()}"
