"""How much the trees hold that containers have made: nested as deeply as they like, and maybe
changed meanwhile."""

from __future__ import annotations

import errno
import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512


def tree_size(path: str | os.PathLike[str], *, on_disk: bool = False) -> int:
    """The bytes of what is below a directory, 0 where there is none; no link is followed.

    `on_disk` counts the blocks that are taken, instead of the files' lengths. What vanishes
    meanwhile counts as nothing. `os.walk` keeps a frame for each level, and paths end at 4 KiB.
    """
    try:
        here = os.open(path, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    total = 0
    try:
        size, names = _scan(here, on_disk)
        total += size
        waiting, identities = [names], [_identity(here)]
        while waiting:
            if waiting[-1]:
                below = _opened(waiting[-1].pop(), here)
                if below is None:
                    continue
                os.close(here)
                here = below
                size, names = _scan(here, on_disk)
                total += size
                waiting.append(names)
                identities.append(_identity(here))
                continue
            waiting.pop()
            identities.pop()
            if not waiting:
                break
            above = os.open("..", _DIRECTORY, dir_fd=here)
            os.close(here)
            here = above
            if _identity(here) != identities[-1]:
                break  # it is moved about: where the rest is nobody knows
    finally:
        os.close(here)
    return total


def _scan(here: int, on_disk: bool) -> tuple[int, list[str]]:
    """The bytes of the files in an open directory, and the names of its directories."""
    total, directories = 0, []
    with os.scandir(here) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(status.st_mode):
                directories.append(entry.name)
            else:
                total += status.st_blocks * _BLOCK if on_disk else status.st_size
    return total, directories


def _opened(name: str, here: int) -> int | None:
    try:
        return os.open(name, _DIRECTORY, dir_fd=here)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None  # a link stands there now
        raise


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
