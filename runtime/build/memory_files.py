"""Files that are held in memory for as long as a build step needs them.

The runtime gives containers texts; a secret that is none lies in a directory of the host's
shared memory that only root can enter, and is bind-mounted. What a killed build left there is
removed by the next one that uses it: its lock is free.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import Unsupported
from runtime.linux import mounts
from runtime.linux.files import try_lock

SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "bayplan-build-"
_NEW = ".bayplan-new-"


@contextlib.contextmanager
def file_in_memory(
    content: bytes, *, mode: int, uid: int, gid: int, place: Path = SHARED_MEMORY
) -> Iterator[Path]:
    """A file of this content for the length of the block; raises Unsupported without memory."""
    if not _in_memory(place):
        raise Unsupported(
            f"a secret that is not text needs a tmpfs at {place}", hint="give it as base64"
        )
    _sweep(place)
    draft = Path(tempfile.mkdtemp(prefix=_NEW, dir=place))
    held = try_lock(draft / "lock")
    assert held is not None, "a file that nobody knows cannot be locked by somebody else"
    directory = draft.rename(place / f"{_PREFIX}{draft.name.removeprefix(_NEW)}")
    try:
        path = directory / "content"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)
        yield path
    finally:
        shutil.rmtree(directory)
        os.close(held)


def _in_memory(place: Path) -> bool:
    try:
        fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return mounts.filesystem_type(fd) == mounts.TMPFS_MAGIC
    finally:
        os.close(fd)


def _sweep(place: Path) -> None:
    for directory in place.glob(f"{_PREFIX}*"):
        try:
            if directory.lstat().st_uid != os.geteuid():
                continue
            held = try_lock(directory / "lock")
        except FileNotFoundError:
            continue  # its owner has just finished
        if held is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(held)
