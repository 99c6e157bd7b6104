"""The merged tree of several overlayfs layers, read without mounting it.

Layers are in overlayfs form: a whiteout is a character device 0:0, an opaque directory has
the attribute trusted.overlay.opaque=y (kernel Documentation/filesystems/overlayfs.rst).
Names are looked up one component at a time by descriptor and never followed by the kernel;
symbolic links are followed here, with the tree's root as "/", so nothing leads outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from runtime.errors import ImageError

Parts = tuple[bytes, ...]

MAX_LINKS = 40
OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = 64
MAX_DEPTH = 256
"""Directories in one another. Whoever reads a tree holds a frame, whoever writes one a descriptor
for each: what is nested deeper is refused before it can use them up."""


def split(path: bytes) -> Parts:
    """The components of a path, without empty ones and dots; `..` stays."""
    return tuple(part for part in path.split(b"/") if part and part != b".")


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(fd: int) -> bool:
    """True where the directory `fd` hides what lower layers have at its place."""
    for name in OPAQUE:
        try:
            if os.getxattr(fd, name) == b"y":
                return True
        except OSError as exc:
            if exc.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):
                raise
    return False


@dataclass(frozen=True, slots=True)
class Found:
    """A name in the merged tree: its status, and the directory of the layer that holds it.

    `directory` belongs to the tree and stays open while the tree does not look up more.
    """

    status: os.stat_result
    directory: int
    name: bytes

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)

    def readlink(self) -> bytes:
        return os.readlink(self.name, dir_fd=self.directory)

    def open(self, flags: int = os.O_RDONLY) -> int:
        """Open it without following a link and without blocking on a FIFO."""
        return os.open(
            self.name,
            flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
            dir_fd=self.directory,
        )


def check_depth(parts: Parts) -> None:
    """Raises ImageError for what is nested deeper than is read and written."""
    if len(parts) > MAX_DEPTH:
        start = b"/".join(parts)[:40].decode(errors="backslashreplace")
        raise ImageError(f"/{start}… is nested deeper than the {MAX_DEPTH} levels of an image")


def without_links(parts: Parts, look: Callable[[Parts], Found | None], *, follow: bool) -> Parts:
    """`parts` with the links that `look` finds on the way followed; `..` ends at the root."""
    check_depth(parts)
    real: list[bytes] = []
    pending = list(reversed(parts))
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            del real[-1:]
            continue
        found = look((*real, name))
        if found is None or not found.is_link or not (pending or follow):
            real.append(name)
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), _text(parts))
        target = found.readlink()
        if target.startswith(b"/"):
            real.clear()
        pending.extend(reversed(split(target)))
    return tuple(real)


class MergedTree:
    """Read-only view of `layers`, lowest first; the layers must not change meanwhile.

    Not for several threads at once. Close it, or use it as a context manager.
    """

    def __init__(self, layers: Iterable[str | os.PathLike[str]]) -> None:
        self._cache: OrderedDict[Parts, tuple[int, ...]] = OrderedDict()
        roots: list[int] = []
        self._roots: tuple[int, ...] = ()
        try:
            for layer in layers:
                roots.append(os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except BaseException:
            for fd in roots:
                os.close(fd)
            raise
        roots.reverse()
        self._roots = tuple(roots)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for fds in self._cache.values():
            _close(fds)
        self._cache.clear()
        _close(self._roots)
        self._roots = ()

    def entry(self, parts: Parts) -> Found | None:
        """What stands at exactly `parts`, no link followed; None where there is nothing."""
        if not parts:
            if not self._roots:
                return None
            top = self._roots[0]
            return Found(os.fstat(top), top, b".")
        for fd in self._directories(parts[:-1]):
            status = _lstat(parts[-1], fd)
            if status is not None:
                return None if is_whiteout(status) else Found(status, fd, parts[-1])
        return None

    def resolve(self, parts: Parts, *, follow: bool = True) -> Parts:
        """`parts` with every link followed inside the tree; a tail that is not there is kept.

        With `follow` false the last component is left as it is. Raises OSError (ELOOP).
        """
        return without_links(parts, self.entry, follow=follow)

    def find(self, path: bytes, *, follow: bool = True) -> Found | None:
        """What `path` leads to; parents are followed always, the last link with `follow`."""
        return self.entry(self.resolve(split(path), follow=follow))

    def names(self, parts: Parts) -> list[bytes]:
        """The names in the directory at exactly `parts`, sorted."""
        seen: dict[bytes, bool] = {}
        for fd in self._directories(parts):
            with os.scandir(fd) as entries:
                for item in entries:
                    name = os.fsencode(item.name)
                    if name not in seen:
                        seen[name] = not is_whiteout(item.stat(follow_symlinks=False))
        return sorted(name for name, visible in seen.items() if visible)

    def read(self, path: bytes, *, limit: int = 4 * 1024 * 1024) -> bytes | None:
        """The content of the regular file that `path` leads to, None where there is none.

        A FIFO or device, and a file over `limit` bytes, raise OSError.
        """
        found = self.find(path)
        if found is None or found.is_directory:
            return None
        if not stat.S_ISREG(found.status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        if found.status.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", os.fsdecode(path))
        with os.fdopen(found.open(), "rb") as file:
            return file.read(limit)

    def _directories(self, parts: Parts) -> tuple[int, ...]:
        """The directories of all layers that make up the directory at `parts`, topmost first."""
        if not parts:
            return self._roots
        cached = self._cache.get(parts)
        if cached is not None:
            self._cache.move_to_end(parts)
            return cached
        found: list[int] = []
        try:
            for fd in self._directories(parts[:-1]):
                try:
                    child = os.open(parts[-1], _DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    if exc.errno in (errno.ENOTDIR, errno.ELOOP):
                        break  # a file, link or whiteout hides what lies below
                    raise
                found.append(child)
                if is_opaque(child):
                    break
        except BaseException:
            _close(found)
            raise
        fds = tuple(found)
        self._cache[parts] = fds
        while len(self._cache) > _KEPT:
            _, old = self._cache.popitem(last=False)
            _close(old)
        return fds


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _lstat(name: bytes, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _text(parts: Parts) -> str:
    return os.fsdecode(b"/" + b"/".join(parts))
