"""Makes files of a container like files of the host, one by one, for as long as its tree is open.

A file is replaced in one step (rename(2)), so that a reader in the container sees the old or the
new, whole. One that is mounted there by itself cannot be, and is written in place. Paths are
resolved by the kernel with the container's root as "/", their last name is never followed, and no
mount is removed or entered by a removal. Nothing of the container's is executed or loaded.

Files belong to the user that the container runs as, and so do directories that are made on the
way, with mode 0755. They keep mode and modification time, but not the set-user-ID and set-group-ID
bits: their owner is another one in there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import NoReturn

from runtime.container.archive import Attributes, Rules, dress
from runtime.container.host_file import HostFile
from runtime.container.identity import Identity
from runtime.container.rootfs import normal_target
from runtime.errors import FileRefused
from runtime.linux import files, mounts
from runtime.removal import remove_tree

TEMPORARY = ".bayplan-"
"""What the name of a file begins with that is about to replace another."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_WAITING = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_KEPT = 128  # directories that are kept open
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Mirror:
    """The files below the open directory `root`; blocking, for one thread."""

    def __init__(self, root: int, owner: Identity, *, running: bool) -> None:
        self._root = root
        self._owner = owner
        self._running = running
        self._rules = Rules(archive=True, plain=True, skipped=lambda _name: None)
        self._directories: dict[str, int] = {}
        self._temporary = f"{TEMPORARY}{os.urandom(8).hex()}"

    def close(self) -> None:
        for fd in self._directories.values():
            os.close(fd)
        self._directories.clear()

    # --- what is asked for -----------------------------------------------------------------

    def put(self, source: str, target: str) -> int | None:
        """Make `target` like the host's `source`, a file, link or directory (without what is in
        it); the bytes written, None where nothing was to do.

        Raises FileRefused, and OSError where the file system is full.
        """
        target = normal_target(target)
        try:
            with HostFile(source) as opened:
                try:
                    return self._put(opened, target)
                except FileNotFoundError:
                    # Somebody in there has removed the directory that we had open.
                    self.close()
                    return self._put(opened, target)
        except OSError as error:
            self._refuse(error, target)

    def remove(self, target: str) -> bool:
        """Remove `target` with all that is in it; whether there was anything. As `put` raises."""
        target = normal_target(target)
        above, name = _split(target)
        try:
            directory = self._existing(above)
            if directory is None or (there := _lstat(directory, name)) is None:
                return False
            if files.is_mount_point(directory, name):
                raise FileRefused("something is mounted there")
            self._forget(target)
            if stat.S_ISDIR(there.st_mode):
                remove_tree(directory, name)
            else:
                os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            return False  # it went meanwhile
        except OSError as error:
            self._refuse(error, target)
        return True

    def differs(self, source: str, target: str) -> bool:
        """Whether `put` would change what is there, or say why it does not: another kind, size or
        mode, or where only the times differ, another content."""
        try:
            with HostFile(source) as opened:
                target = normal_target(target)
                above, name = _split(target)
                directory = self._existing(above)
                there = None if directory is None else _lstat(directory, name)
                if directory is None or there is None:
                    return True
                return self._differs(opened, directory, name, there)
        except (OSError, FileRefused):
            return True

    # --- files -----------------------------------------------------------------------------

    def _put(self, source: HostFile, target: str) -> int | None:
        above, name = _split(target)
        directory = self._directory(above, source.path)
        there = _lstat(directory, name)
        if there is not None and os.path.samestat(there, source.status):
            return None  # the host's own file, by way of a bind mount
        if there is not None and not stat.S_ISREG(there.st_mode):
            self._forget(target)  # paths may lead through it
        if source.is_directory:
            return self._put_directory(source, directory, name, there)
        if there is not None:
            if stat.S_ISCHR(there.st_mode) or stat.S_ISBLK(there.st_mode):
                raise FileRefused("a device is in its place")
            if files.is_mount_point(directory, name):
                return self._write_in_place(source, directory, name, there)
        if source.link is not None:
            return self._put_link(source, directory, name)
        return self._put_file(source, directory, name)

    def _put_file(self, source: HostFile, directory: int, name: str) -> int:
        out = os.open(self._temporary, _CREATE, 0o600, dir_fd=directory)
        try:
            try:
                source.copy_to(out)
                dress(out, self._attributes(source), self._rules)
            finally:
                os.close(out)
            self._replace(directory, name)
        except BaseException:
            self._drop(directory)
            raise
        return source.status.st_size

    def _put_link(self, source: HostFile, directory: int, name: str) -> int | None:
        with contextlib.suppress(OSError):
            if os.readlink(name, dir_fd=directory) == source.link:
                return None
        assert source.link is not None
        os.symlink(source.link, self._temporary, dir_fd=directory)
        try:
            owner = self._owner
            os.chown(self._temporary, owner.uid, owner.gid, dir_fd=directory, follow_symlinks=False)
            times = (source.status.st_mtime_ns, source.status.st_mtime_ns)
            os.utime(self._temporary, ns=times, dir_fd=directory, follow_symlinks=False)
            self._replace(directory, name)
        except BaseException:
            self._drop(directory)
            raise
        return 0

    def _replace(self, directory: int, name: str) -> None:
        """Give the new file its name. A directory of that name goes first."""
        try:
            os.rename(self._temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except IsADirectoryError:
            remove_tree(directory, name)
            os.rename(self._temporary, name, src_dir_fd=directory, dst_dir_fd=directory)

    def _drop(self, directory: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=directory)

    def _write_in_place(
        self, source: HostFile, directory: int, name: str, there: os.stat_result
    ) -> int:
        """A single file that is mounted by itself: other bytes, the same owner and mode."""
        if source.link is not None or not stat.S_ISREG(there.st_mode):
            raise FileRefused("something is mounted there")
        out = os.open(name, os.O_WRONLY | _NO_WAITING, dir_fd=directory)
        try:
            if not os.path.samestat(os.fstat(out), there):
                raise FileRefused("it is being replaced")
            source.copy_to(out, holes=False)
            os.ftruncate(out, source.status.st_size)
            os.utime(out, ns=(source.status.st_mtime_ns, source.status.st_mtime_ns))
        finally:
            os.close(out)
        return source.status.st_size

    def _put_directory(
        self, source: HostFile, directory: int, name: str, there: os.stat_result | None
    ) -> int | None:
        """A directory that is there stays as it is."""
        if there is not None:
            if stat.S_ISDIR(there.st_mode):
                return None
            if files.is_mount_point(directory, name):
                raise FileRefused("something is mounted there")
            os.unlink(name, dir_fd=directory)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=directory)
        made = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            dress(made, self._attributes(source), self._rules)
        finally:
            os.close(made)
        return 0

    def _attributes(self, source: HostFile) -> Attributes:
        return Attributes(
            mode=stat.S_IMODE(source.status.st_mode),
            uid=self._owner.uid,
            gid=self._owner.gid,
            mtime_ns=source.status.st_mtime_ns,
        )

    def _differs(self, source: HostFile, directory: int, name: str, there: os.stat_result) -> bool:
        if source.is_directory:
            return not stat.S_ISDIR(there.st_mode)
        if source.link is not None:
            return not stat.S_ISLNK(there.st_mode) or source.link != os.readlink(
                name, dir_fd=directory
            )
        ours = source.status
        if os.path.samestat(ours, there):
            return False
        if not stat.S_ISREG(there.st_mode) or ours.st_size != there.st_size:
            return True
        if stat.S_IMODE(ours.st_mode) & ~_SPECIAL != stat.S_IMODE(
            there.st_mode
        ) and not files.is_mount_point(directory, name):
            return True
        if ours.st_mtime_ns == there.st_mtime_ns:
            return False
        fd = os.open(name, os.O_RDONLY | _NO_WAITING, dir_fd=directory)
        try:
            return not stat.S_ISREG(os.fstat(fd).st_mode) or not source.same_content(fd)
        finally:
            os.close(fd)

    # --- directories -----------------------------------------------------------------------

    def _directory(self, path: str, source: str) -> int:
        """The directory at `path`, made where missing; the mirror's to close."""
        known = self._directories.get(path)
        if known is not None:
            return known
        try:
            fd = self._make(path)
        except NotADirectoryError:
            if not self._clear_way(path, os.path.dirname(source)):
                raise
            fd = self._make(path)
        return self._keep(path, fd)

    def _make(self, path: str) -> int:
        owner = self._owner
        return files.make_directories_in_root(self._root, path, uid=owner.uid, gid=owner.gid)

    def _existing(self, path: str) -> int | None:
        """The directory at `path`, None where there is none; the mirror's to close."""
        known = self._directories.get(path)
        if known is not None:
            return known
        try:
            fd = files.open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self._keep(path, fd)

    def _keep(self, path: str, fd: int) -> int:
        if len(self._directories) >= _KEPT:
            self.close()
        self._directories[path] = fd
        return fd

    def _forget(self, path: str) -> None:
        """Open anew what was known at and below `path`, which is about to go."""
        for known in list(self._directories):
            if known == path or known.startswith(path + "/"):
                os.close(self._directories.pop(known))

    def _clear_way(self, path: str, host: str) -> bool:
        """Remove what is no directory on the way to `path` where the host has one of the same name.

        `host` is the host's directory that `path` stands for.
        """
        while path != "/" and os.path.basename(host) == os.path.basename(path):
            above, name = _split(path)
            directory = self._existing(above)
            if directory is not None:
                if files.is_mount_point(directory, name):
                    raise FileRefused("something is mounted in its way")
                os.unlink(name, dir_fd=directory)
                return True
            path, host = above, os.path.dirname(host)
        return False

    # --- what is in the way ----------------------------------------------------------------

    def _refuse(self, error: OSError, target: str) -> NoReturn:
        if error.errno in _FULL:
            raise error
        if error.errno == errno.EROFS:
            raise FileRefused(self._why_read_only(target)) from error
        raise FileRefused(os.strerror(error.errno or 0).lower()) from error

    def _why_read_only(self, target: str) -> str:
        if not self._running:
            path = target
            while path != "/":
                path = os.path.dirname(path)
                place = self._existing(path)
                if place is not None:
                    if mounts.filesystem_type(place) == mounts.TMPFS_MAGIC:
                        return "only a running container has something there"
                    break
        return "it is mounted read-only"


def _split(target: str) -> tuple[str, str]:
    above, _, name = target.rpartition("/")
    if name in ("", ".."):
        raise FileRefused("no file can be there")
    return above or "/", name


def _lstat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
