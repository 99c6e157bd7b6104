"""Packing an overlayfs upper directory into a layer's tar.

Source: OCI image-spec layer.md ("Representing Changes"). Whiteouts and opaque directories
get back their `.wh.` form. Members come in the order of their names, parents first, so that
one tree gives one archive. Times are whole seconds, as other engines write them, and the
tree is given the same times, so that it stays what its archive says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from runtime.errors import ImageError
from runtime.images.merged import MergedTree, check_depth, is_opaque, is_whiteout
from runtime.images.tar_reader import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    CHUNK,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    Entry,
)
from runtime.images.tar_writer import END, header
from runtime.images.unpack import OPAQUE_MARK, WHITEOUT

_SECOND = 1_000_000_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Members of the archive, and bytes of file content in it."""

    entries: int
    size: int


def pack(
    upper: str | os.PathLike[str],
    sink: Callable[[bytes], object],
    *,
    lower: MergedTree,
    epoch: int | None = None,
    settle_times: bool = True,
) -> Packed:
    """Give the archive of `upper` to `sink`, piece by piece.

    `lower` is the tree of the layers below; `epoch` (seconds) is the latest time that a
    member may have (SOURCE_DATE_EPOCH). The upper directory must not change meanwhile;
    without `settle_times` it is only read.
    """
    packing = _Packing(sink, lower, None if epoch is None else epoch * _SECOND, settle_times)
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        packing.directory(root, ())
    finally:
        os.close(root)
    packing.finish()
    return Packed(entries=packing.entries, size=packing.size)


class _Packing:
    def __init__(
        self,
        sink: Callable[[bytes], object],
        lower: MergedTree,
        latest: int | None,
        settle_times: bool,
    ) -> None:
        self._sink = sink
        self._settle_times = settle_times
        self._lower = lower
        self._latest = latest
        self._pieces: list[bytes] = []
        self._held = 0
        self._links: dict[tuple[int, int], bytes] = {}
        self.entries = 0
        self.size = 0

    def directory(self, fd: int, parts: tuple[bytes, ...]) -> None:
        check_depth(parts)
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            here = (*parts, name)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if is_whiteout(status):
                # A whiteout of nothing is left by a file that was made and removed again.
                if self._lower.entry(here) is not None:
                    self._empty((*parts, WHITEOUT + name))
            elif name.startswith(WHITEOUT):
                raise ImageError(
                    f"the name {_shown(here)!r} cannot be part of an image: "
                    f"{WHITEOUT.decode()} marks removed files"
                )
            elif stat.S_ISDIR(status.st_mode):
                self._subdirectory(fd, here, status)
            elif not stat.S_ISSOCK(status.st_mode):  # tar knows no sockets
                self._member(fd, here, status)

    def finish(self) -> None:
        self._emit(END)
        self._flush()

    def _subdirectory(self, fd: int, here: tuple[bytes, ...], status: os.stat_result) -> None:
        child = os.open(here[-1], _DIRECTORY, dir_fd=fd)
        try:
            entry = self._entry(here, DIRECTORY, status)
            entry.name += b"/"
            entry.xattrs = content_xattrs(child)
            self._emit(header(entry))
            self.entries += 1
            if is_opaque(child) and self._lower.entry(here) is not None:
                self._empty((*here, OPAQUE_MARK))
            self.directory(child, here)
            if self._settle_times:
                os.utime(child, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(child)

    def _member(self, fd: int, here: tuple[bytes, ...], status: os.stat_result) -> None:
        name = here[-1]
        path = b"/".join(here)
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        entry = self._entry(here, kind, status)
        self.entries += 1
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            first = self._links.setdefault(key, path)
            if first is not path:
                entry.kind, entry.linkname = LINK, first
                self._emit(header(entry))
                return
        if kind is FILE:
            self._file(fd, name, entry, status)
            return
        if kind is SYMLINK:
            entry.linkname = os.readlink(name, dir_fd=fd)
        elif kind is not FIFO:
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._emit(header(entry))
        if self._settle_times:
            times = (entry.mtime_ns, entry.mtime_ns)
            os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)

    def _file(self, fd: int, name: bytes, entry: Entry, status: os.stat_result) -> None:
        source = os.open(name, _FILE, dir_fd=fd)
        try:
            entry.size = status.st_size
            entry.xattrs = content_xattrs(source)
            self._emit(header(entry))
            left = entry.size
            self.size += left
            while left:
                piece = os.read(source, min(left, CHUNK))
                if not piece:
                    raise ImageError(f"{_shown((entry.name,))!r} became shorter while it was read")
                left -= len(piece)
                self._emit(piece)
            self._emit(bytes(-entry.size % BLOCK))
            if self._settle_times and entry.mtime_ns != status.st_mtime_ns:
                os.utime(source, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(source)

    def _empty(self, parts: tuple[bytes, ...]) -> None:
        """A mark: an empty file without time, so that equal changes give equal archives."""
        entry = Entry(
            name=b"/".join(parts), kind=FILE, mode=0o600, uid=0, gid=0, size=0, mtime_ns=0
        )
        self._emit(header(entry))
        self.entries += 1

    def _entry(self, here: tuple[bytes, ...], kind: bytes, status: os.stat_result) -> Entry:
        mtime = status.st_mtime_ns
        if self._latest is not None:
            mtime = min(mtime, self._latest)
        return Entry(
            name=b"/".join(here),
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            size=0,
            mtime_ns=mtime - mtime % _SECOND,
        )

    def _emit(self, piece: bytes) -> None:
        if not piece:
            return
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._sink(b"".join(self._pieces))
        self._pieces.clear()
        self._held = 0


_KEPT_XATTRS = frozenset(
    {"security.capability", "system.posix_acl_access", "system.posix_acl_default"}
)
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}


def content_xattrs(fd: int) -> dict[bytes, bytes]:
    """The attributes that belong to the content: not overlayfs' marks, not the host's labels."""
    found = {}
    for name in os.listxattr(fd):
        is_user = name.startswith("user.") and not name.startswith("user.overlay.")
        if is_user or name in _KEPT_XATTRS:
            found[os.fsencode(name)] = os.getxattr(fd, name)
    return found


def _shown(parts: tuple[bytes, ...]) -> str:
    return "/" + b"/".join(parts).decode(errors="backslashreplace")
