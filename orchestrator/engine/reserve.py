"""Room on the disk that is kept for taking things down.

Every end of a container is written down, so that on a disk without any room nothing could be
removed, and no room be made.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

FILE_NAME = "reserve"
SIZE = 4 * 1024 * 1024
_PLENTY = 4 * SIZE


class Reserve:
    """A file of 4 MiB below an instance's state directory. Blocking."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / FILE_NAME

    def keep(self) -> None:
        """Take the room, where the disk has plenty; where it has not, a later call may."""
        if self._size() >= SIZE or self._free() < _PLENTY:
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, SIZE)
            finally:
                os.close(fd)
        except OSError:  # somebody else was quicker to take it
            self._path.unlink(missing_ok=True)

    def give(self) -> None:
        """Give it up, where the disk has nothing else to offer."""
        if self._free() < SIZE:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _free(self) -> int:
        status = os.statvfs(self._root)
        return status.f_bavail * status.f_frsize
