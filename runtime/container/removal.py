"""Removes trees in a container, and nothing that is mounted in them."""

from __future__ import annotations

import errno
import os

from runtime.linux import files

_DEEPEST = 200  # each level holds a descriptor
_RESOLVE = files.RESOLVE_BENEATH | files.RESOLVE_NO_SYMLINKS | files.RESOLVE_NO_XDEV


def remove_tree(directory: int, name: str) -> None:
    """Remove the directory `name` in the open `directory` with all that is in it.

    No link is followed and no mount entered, whatever is swapped meanwhile. Raises OSError:
    EBUSY where something is mounted in it (the rest is gone), ENOTEMPTY where somebody fills it
    faster, ENAMETOOLONG where it is nested deeper than 200 levels.
    """
    if not _remove(directory, name, 0):
        raise OSError(errno.EBUSY, "something is mounted in it", name)


def _remove(directory: int, name: str, depth: int) -> bool:
    """False where a mount is in the way."""
    if depth > _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, "nested too deeply", name)
    try:
        here = files.openat2(directory, name, os.O_RDONLY | os.O_DIRECTORY, resolve=_RESOLVE)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    complete = True
    try:
        with os.scandir(here) as entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        complete &= _remove(here, entry.name, depth + 1)
                    elif files.is_mount_point(here, entry.name):
                        complete = False
                    else:
                        os.unlink(entry.name, dir_fd=here)
                except FileNotFoundError:
                    continue  # somebody was faster
    finally:
        os.close(here)
    if complete:
        os.rmdir(name, dir_fd=directory)
    return complete
