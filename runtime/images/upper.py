"""The directory that becomes a new layer, written by descriptor on top of a merged tree.

What is missing in the layer but stands below it is taken over: a directory of a lower layer
is made anew with the same owner, mode and attributes, a symbolic link of a lower layer is
followed inside the tree. Nothing is ever looked up by a path of more than one component.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from types import TracebackType
from typing import Self

from runtime.errors import ImageError
from runtime.images.merged import (
    MAX_LINKS,
    Found,
    MergedTree,
    Parts,
    check_depth,
    is_opaque,
    is_whiteout,
    split,
    without_links,
)
from runtime.removal import remove_tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = 256
_CHUNK = 1024 * 1024


class UpperTree:
    """Write access to the layer directory `path` on top of `lower`.

    With `privileged` owners, devices and trusted attributes are set; without it (tests, a
    user of their own) files keep the caller's owner. `follow_own` follows links of the layer
    itself too, as a copy into an image must; an archive that writes through its own links is
    refused.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        lower: MergedTree,
        *,
        privileged: bool,
        follow_own: bool,
    ) -> None:
        self.lower = lower
        self.privileged = privileged
        self.opaque_name = "trusted.overlay.opaque" if privileged else "user.overlay.opaque"
        self._follow_own = follow_own
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: dict[Parts, int] = {}
        self._opaque: dict[Parts, bool] = {}
        self.taken_over: dict[Parts, os.stat_result] = {}
        """Directories that were made after a lower layer's, with its status."""

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
        self._forget_all()
        os.close(self._root)

    def place(self, parts: Parts) -> tuple[int, bytes]:
        """The open directory and the name to create `parts` in; parents are made as needed."""
        return self.directory(parts[:-1]), parts[-1]

    def directory(self, parts: Parts, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> int:
        """The directory at `parts`, opened for reading, made where nothing stands.

        Owner and mode hold for directories that are new in the whole tree. The descriptor
        belongs to the tree and stays open until `replace` or another `directory` call.
        """
        return self.walk(parts, mode=mode, uid=uid, gid=gid)[1]

    def walk(
        self, parts: Parts, *, mode: int = 0o755, uid: int = 0, gid: int = 0
    ) -> tuple[Parts, int]:
        """As `directory`, with the real components of the place that `parts` leads to."""
        cached = self._open.get(parts)
        if cached is not None:
            return parts, cached
        if not parts:
            return parts, self._root
        check_depth(parts)
        real: list[bytes] = []
        pending = list(reversed(parts))
        fd = self._root
        links = 0
        while pending:
            name = pending.pop()
            if name == b"..":
                del real[-1:]
                fd = self._reopen(tuple(real))
                continue
            here = (*real, name)
            cached = self._open.get(here)
            if cached is None:
                step = self._enter(fd, here, mode=mode, uid=uid, gid=gid)
                if isinstance(step, bytes):
                    links += 1
                    if links > MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), shown(parts))
                    if step.startswith(b"/"):
                        real.clear()
                        fd = self._root
                    pending.extend(reversed(split(step)))
                    continue
                self._remember(here, step)
                cached = step
            fd = cached
            real.append(name)
        return tuple(real), fd

    def status(self, parts: Parts) -> os.stat_result | None:
        """What the layer itself has at exactly `parts`; None for nothing, and for no parent."""
        if not parts:
            return os.fstat(self._root)
        fd = self.peek(parts[:-1])
        return None if fd is None else _lstat(parts[-1], fd)

    def found(self, parts: Parts) -> Found | None:
        """What the tree, layer and lower ones together, has at exactly `parts`."""
        if not parts:
            return Found(os.fstat(self._root), self._root, b".")
        fd = self.peek(parts[:-1])
        if fd is not None and (status := _lstat(parts[-1], fd)) is not None:
            return None if is_whiteout(status) else Found(status, fd, parts[-1])
        return None if self._hidden(parts) else self.lower.entry(parts)

    def resolve(self, parts: Parts, *, follow: bool = True) -> Parts:
        """As `MergedTree.resolve`, over the layer and the lower ones together."""
        return without_links(parts, self.found, follow=follow)

    def clear(self, parts: Parts, fd: int) -> None:
        """Remove what the layer has at `parts` (in the open parent `fd`), whatever it is."""
        name = parts[-1]
        try:
            os.unlink(name, dir_fd=fd)
        except IsADirectoryError:
            self._forget(parts)
            remove_tree(fd, os.fsdecode(name))

    def clear_if_there(self, parts: Parts, fd: int) -> None:
        """As `clear`, for a name that may be free."""
        with contextlib.suppress(FileNotFoundError):
            self.clear(parts, fd)

    def make_directory(self, parts: Parts, fd: int) -> int:
        """Have a directory at `parts` (in the open parent `fd`) and give it, open.

        What is there and no directory is replaced, and the new directory is opaque: what
        the old entry, a whiteout maybe, hid stays hidden.
        """
        known = self._open.get(parts)
        if known is not None:
            return known
        name = parts[-1]
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=fd)
                os.mkdir(name, 0o700, dir_fd=fd)
                self.set_opaque(name, fd)
        child = os.open(name, _DIRECTORY, dir_fd=fd)
        self._remember(parts, child)
        return child

    def set_opaque(self, name: bytes, fd: int) -> None:
        """Hide what lower layers have in the directory `name` of `fd`."""
        child = os.open(name, _DIRECTORY, dir_fd=fd)
        try:
            self.mark_opaque(child)
        finally:
            os.close(child)

    def mark_opaque(self, fd: int) -> None:
        """Hide what lower layers have in the open directory `fd`."""
        self._opaque.clear()
        os.setxattr(fd, self.opaque_name, b"y")

    def create_file(self, parts: Parts, fd: int) -> int:
        """A new, empty file at `parts` (in the open parent `fd`), open for writing."""
        try:
            return os.open(parts[-1], _CREATE, 0o600, dir_fd=fd)
        except FileExistsError:
            self.clear(parts, fd)
            return os.open(parts[-1], _CREATE, 0o600, dir_fd=fd)

    def root_like_lower(self) -> None:
        """Give the layer's root the owner, mode and time of the root below it."""
        found = self.lower.entry(())
        if found is None:
            os.fchmod(self._root, 0o755)
            return
        self._take_metadata(self._root, found.directory, found.status)
        os.utime(self._root, ns=(found.status.st_atime_ns, found.status.st_mtime_ns))

    def restore_times(self) -> None:
        """Give directories that were taken over the times of the lower layers' again."""
        for parts in sorted(self.taken_over, key=len, reverse=True):
            status = self.taken_over[parts]
            fd = self.peek(parts)
            if fd is not None:
                os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))

    def take_over(self, parts: Parts, found: Found) -> None:
        """Copy a file or link of a lower layer into this layer (a copy-up)."""
        fd, name = self.place(parts)
        status = found.status
        if found.is_link:
            os.symlink(found.readlink(), name, dir_fd=fd)
            if self.privileged:
                os.chown(name, status.st_uid, status.st_gid, dir_fd=fd, follow_symlinks=False)
            times = (status.st_atime_ns, status.st_mtime_ns)
            os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
            return
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a file or link", shown(parts))
        source = found.open()
        try:
            target = self.create_file(parts, fd)
            try:
                while os.sendfile(target, source, None, _CHUNK):
                    pass
                self._take_metadata(target, source, status)
                os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _enter(self, fd: int, here: Parts, *, mode: int, uid: int, gid: int) -> int | bytes:
        """Open, or make, the directory at `here`; the target where a link must be followed."""
        name = here[-1]
        try:
            return os.open(name, _DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            found = None if self._hidden(here) else self.lower.entry(here)
            if found is None or found.is_directory:
                return self._make(fd, here, found, mode=mode, uid=uid, gid=gid)
            if found.is_link:
                return found.readlink()
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), shown(here)) from None
        except OSError as exc:
            if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if is_whiteout(status):
            os.unlink(name, dir_fd=fd)
            child = self._make(fd, here, None, mode=mode, uid=uid, gid=gid)
            self.mark_opaque(child)
            return child
        if stat.S_ISLNK(status.st_mode):
            if self._follow_own:
                return os.readlink(name, dir_fd=fd)
            raise ImageError(f"the path leads through the symbolic link {shown(here)!r}")
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), shown(here))

    def _make(
        self, fd: int, here: Parts, like: Found | None, *, mode: int, uid: int, gid: int
    ) -> int:
        os.mkdir(here[-1], 0o700, dir_fd=fd)
        child = os.open(here[-1], _DIRECTORY, dir_fd=fd)
        try:
            if like is not None:
                source = like.open(os.O_RDONLY | os.O_DIRECTORY)
                try:
                    self._take_metadata(child, source, like.status)
                finally:
                    os.close(source)
                os.utime(child, ns=(like.status.st_atime_ns, like.status.st_mtime_ns))
                self.taken_over[here] = like.status
            else:
                if self.privileged:
                    os.fchown(child, uid, gid)
                os.fchmod(child, mode)
        except BaseException:
            os.close(child)
            raise
        return child

    def _take_metadata(self, target: int, source: int, status: os.stat_result) -> None:
        if self.privileged:
            os.fchown(target, status.st_uid, status.st_gid)
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(source):
            if not name.startswith(("trusted.overlay.", "user.overlay.")):
                with contextlib.suppress(PermissionError):
                    os.setxattr(target, name, os.getxattr(source, name))

    def _hidden(self, parts: Parts) -> bool:
        """True where a directory of this layer hides what lower layers have at `parts`."""
        for depth in range(1, len(parts)):
            fd = self.peek(parts[:depth])
            if fd is None:
                return self.status(parts[:depth]) is not None
            if self._is_opaque(parts[:depth], fd):
                return True
        return False

    def _is_opaque(self, parts: Parts, fd: int) -> bool:
        known = self._opaque.get(parts)
        if known is None:
            if len(self._opaque) >= _KEPT:
                self._opaque.clear()
            known = self._opaque[parts] = is_opaque(fd)
        return known

    def peek(self, parts: Parts) -> int | None:
        """The layer's own directory at exactly `parts`, None where it has none."""
        if not parts:
            return self._root
        known = self._open.get(parts)
        if known is not None:
            return known
        above = self.peek(parts[:-1])
        if above is None:
            return None
        try:
            child = os.open(parts[-1], _DIRECTORY, dir_fd=above)
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        self._remember(parts, child)
        return child

    def _reopen(self, parts: Parts) -> int:
        fd = self.peek(parts)
        if fd is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), shown(parts))
        return fd

    def _remember(self, parts: Parts, fd: int) -> None:
        if len(self._open) >= _KEPT:
            # Parents of what is being walked may be among them; only strangers go.
            for old in [known for known in self._open if known != parts[: len(known)]]:
                os.close(self._open.pop(old))
        self._open[parts] = fd

    def _forget(self, parts: Parts) -> None:
        self._opaque.clear()
        for known in [known for known in self._open if known[: len(parts)] == parts]:
            os.close(self._open.pop(known))
        for known in [known for known in self.taken_over if known[: len(parts)] == parts]:
            del self.taken_over[known]

    def _forget_all(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def shown(parts: Parts) -> str:
    """A path for messages."""
    return "/" + b"/".join(parts).decode(errors="backslashreplace")


def _lstat(name: bytes, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
