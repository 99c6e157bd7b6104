"""Removes trees that a container has made, and nothing that is mounted in them.

`shutil.rmtree` gives up where such a tree is nested deeper than Python's stack.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import FileRefused, RuntimeFault
from runtime.linux import files

_RESOLVE = files.RESOLVE_NO_SYMLINKS | files.RESOLVE_NO_XDEV


@dataclass(slots=True)
class _Level:
    """A directory on the way down, with those in it that are still to be removed."""

    name: str
    identity: tuple[int, int]
    waiting: list[str]
    complete: bool = True


def remove_tree(directory: int, name: str) -> None:
    """Remove the directory `name` in the open `directory` with all that is in it.

    No link is followed and no mount entered, whatever is swapped meanwhile; it may be nested as
    deeply as it likes, as neither a frame nor a descriptor is kept for each level. Raises
    FileRefused where something is mounted in it (the rest is gone) or it is moved about meanwhile,
    OSError.
    """
    here = _open(directory, name)
    try:
        levels = [_enter(here, name)]
        while True:
            level = levels[-1]
            if level.waiting:
                below = _descend(here, level)
                if below is not None:
                    entered, level = below
                    os.close(here)
                    here = entered
                    levels.append(level)
                continue
            levels.pop()
            if not levels:
                break
            above = files.openat2(here, "..", os.O_PATH | os.O_DIRECTORY, resolve=_RESOLVE)
            os.close(here)
            here = above
            if _identity(here) != levels[-1].identity:
                raise FileRefused("it is moved about meanwhile")
            _finish(here, level, levels[-1])
    finally:
        os.close(here)
    if not level.complete:
        raise FileRefused("something is mounted in it")
    os.rmdir(name, dir_fd=directory)


def _open(directory: int, name: str) -> int:
    return files.openat2(directory, name, os.O_RDONLY | os.O_DIRECTORY, resolve=_RESOLVE)


def _enter(here: int, name: str) -> _Level:
    """Remove all but the directories in the open directory `here`."""
    level = _Level(name, _identity(here), [])
    with os.scandir(here) as entries:
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    level.waiting.append(entry.name)
                elif files.is_mount_point(here, entry.name):
                    level.complete = False
                else:
                    os.unlink(entry.name, dir_fd=here)
            except FileNotFoundError:
                continue  # somebody was faster
    return level


def _descend(here: int, level: _Level) -> tuple[int, _Level] | None:
    """Open the next directory in `here`; None where there is nothing to do in it."""
    name = level.waiting.pop()
    try:
        below = _open(here, name)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        level.complete = False
        return None
    try:
        return below, _enter(below, name)
    except BaseException:
        os.close(below)
        raise


def _finish(here: int, done: _Level, above: _Level) -> None:
    if not done.complete:
        above.complete = False
        return
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(done.name, dir_fd=here)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def discard(path: Path) -> None:
    """Remove the directory `path` of our own with all that is in it, if it is there; somebody else
    may be at it, too. Raises RuntimeFault where something is mounted in it, OSError."""
    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            remove_tree(parent, path.name)
    except FileRefused as error:
        raise RuntimeFault(f"cannot remove {path}") from error
    finally:
        os.close(parent)


@contextlib.contextmanager
def passing_directory(parent: Path, prefix: str) -> Iterator[Path]:
    """A new directory in `parent` for the length of a block, which others may fill."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield path
    finally:
        discard(path)
