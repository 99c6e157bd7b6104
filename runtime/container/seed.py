"""Fills an empty volume with what the image has at its place, as Docker does on first use."""

from __future__ import annotations

import os
import stat

from runtime.container.config import ContainerConfig
from runtime.linux import files

_OPAQUE = "trusted.overlay.opaque"


def seed_volumes(config: ContainerConfig) -> None:
    """Copy the image's content at each `seed` mount's target into its empty source."""
    for mount in config.mounts:
        if mount.seed and not any(os.scandir(mount.source)):
            _seed(config.layers, mount.target, mount.source)


def _seed(layers: tuple[str, ...], target: str, source: str) -> None:
    """Merge `target` of all layers into the directory `source`, the highest layer first."""
    destination = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        first = True
        hidden: set[str] = set()
        for layer in reversed(layers):
            root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                found = files.open_in_root(root, target, os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue
            finally:
                os.close(root)
            try:
                if first:
                    _copy_attributes(found, destination)
                    first = False
                _merge(found, destination, hidden, "")
                if _is_opaque(found):
                    break
            finally:
                os.close(found)
        os.fsync(destination)
    finally:
        os.close(destination)


def _merge(source: int, destination: int, hidden: set[str], prefix: str) -> None:
    """Copy what is not there yet; whiteouts hide names of the layers below."""
    for name in os.listdir(source):
        path = f"{prefix}/{name}"
        if path in hidden:
            continue
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            hidden.add(path)
        elif stat.S_ISDIR(status.st_mode):
            _merge_directory(source, destination, name, hidden, path)
        elif not _exists(destination, name):
            _copy(source, destination, name, status)


def _merge_directory(source: int, destination: int, name: str, hidden: set[str], path: str) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    below = os.open(name, flags, dir_fd=source)
    try:
        made = not _exists(destination, name)
        if made:
            os.mkdir(name, 0o700, dir_fd=destination)
        try:
            into = os.open(name, flags, dir_fd=destination)
        except NotADirectoryError:
            return  # a file of a higher layer took the directory's place
        try:
            _merge(below, into, hidden, path)
            if made:
                _copy_attributes(below, into)
        finally:
            os.close(into)
        if _is_opaque(below):
            hidden.add(path)
    finally:
        os.close(below)


def _copy(source: int, destination: int, name: str, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=destination, follow_symlinks=False)
        return
    if kind != stat.S_IFREG:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=destination)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=destination)
        return
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    writing = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=destination
    )
    try:
        offset = 0
        while offset < status.st_size:
            sent = os.sendfile(writing, reading, offset, status.st_size - offset)
            if not sent:
                break
            offset += sent
        _copy_attributes(reading, writing)
    finally:
        os.close(reading)
        os.close(writing)


def _copy_attributes(source: int, destination: int) -> None:
    status = os.fstat(source)
    os.fchown(destination, status.st_uid, status.st_gid)
    os.fchmod(destination, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith("trusted.overlay."):
            os.setxattr(destination, name, os.getxattr(source, name))
    os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns))


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError:
        return False


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
