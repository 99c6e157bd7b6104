"""Fills an empty volume with what the image has at its place, as Docker does on first use.

Runs in the container's mount namespace while its root is being put together, so the kernel's
overlayfs has merged the layers already. A copy that was cut short is marked on the volume, and
the next start goes on with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from runtime.container.config import ContainerConfig
from runtime.linux import files

_UNFINISHED = "trusted.bayplan.seeding"
_DRAFT = ".bayplan-seed"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def wants_seed(config: ContainerConfig) -> bool:
    """Whether a start will copy something."""
    for mount in config.mounts:
        if mount.seed and os.path.isdir(mount.source):
            fd = os.open(mount.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if _is_wanted(fd):
                    return True
            finally:
                os.close(fd)
    return False


def seed(root: int, target: str, tree: int) -> None:
    """Copy `target` below the directory `root` into the mount `tree`, if that is empty.

    One process at a time for each volume: the caller holds a lock. Other containers may have
    the volume mounted and race with the copy, so no name in it is ever followed.
    """
    with contextlib.ExitStack() as opened:
        try:
            source = files.open_in_root(root, target, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, source)
            destination = os.open(".", _DIRECTORY, dir_fd=tree)
            opened.callback(os.close, destination)
        except (FileNotFoundError, NotADirectoryError):
            return
        if not _is_wanted(destination):
            return
        with contextlib.suppress(OSError):  # a file system without attributes does without
            os.setxattr(destination, _UNFINISHED, b"1")
        _copy_content(source, destination)
        _copy_attributes(source, destination)
        os.fsync(destination)
        with contextlib.suppress(OSError):
            os.removexattr(destination, _UNFINISHED)


def _is_wanted(directory: int) -> bool:
    try:
        os.getxattr(directory, _UNFINISHED)
    except OSError:
        return not os.listdir(directory)
    return True


def _copy_content(source: int, destination: int) -> None:
    """Copy what is not there yet."""
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            _copy_directory(source, destination, name)
        elif not _exists(destination, name):
            _copy(source, destination, name, status)


def _copy_directory(source: int, destination: int, name: str) -> None:
    with contextlib.ExitStack() as opened:
        below = os.open(name, _DIRECTORY, dir_fd=source)
        opened.callback(os.close, below)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=destination)
        try:
            into = os.open(name, _DIRECTORY, dir_fd=destination)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENOENT):
                return  # somebody who shares the volume was faster
            raise
        opened.callback(os.close, into)
        _copy_content(below, into)
        _copy_attributes(below, into)


def _copy(source: int, destination: int, name: str, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(source, destination, name, status.st_size)
        return
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
    else:
        mask = os.umask(0)
        try:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=destination)
        finally:
            os.umask(mask)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=destination, follow_symlinks=False)


def _copy_file(source: int, destination: int, name: str, size: int) -> None:
    """Under a name of its own first, so that a crash leaves no half file at its place."""
    with contextlib.ExitStack() as opened:
        reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        opened.callback(os.close, reading)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_DRAFT, dir_fd=destination)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(_DRAFT, flags, 0o600, dir_fd=destination)
        opened.callback(os.close, writing)
        offset = 0
        while offset < size:
            sent = os.sendfile(writing, reading, offset, size - offset)
            if not sent:
                break
            offset += sent
        _copy_attributes(reading, writing)
        os.rename(_DRAFT, name, src_dir_fd=destination, dst_dir_fd=destination)


def _copy_attributes(source: int, destination: int) -> None:
    status = os.fstat(source)
    os.fchown(destination, status.st_uid, status.st_gid)
    os.fchmod(destination, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        try:
            os.setxattr(destination, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # kinds that this file system does not have
                raise
    os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns))


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
