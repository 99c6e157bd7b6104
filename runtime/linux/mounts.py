"""Mounts by file descriptor: mount(2), fsopen(2), open_tree(2), move_mount(2), mount_setattr(2).

Every function takes and gives descriptors, so that no path is looked up twice. All
descriptors are close-on-exec.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_uint64

from runtime.linux import libc

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_STRICTATIME = 0x20

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6

PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
}

PROC_SUPER_MAGIC = 0x9FA0
TMPFS_MAGIC = 0x01021994
RAMFS_MAGIC = 0x858458F6


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", c_uint64),
        ("attr_clr", c_uint64),
        ("propagation", c_uint64),
        ("userns_fd", c_uint64),
    )


def new_filesystem(
    kind: str,
    options: Mapping[str, str | None] | Iterable[tuple[str, str | None]] = (),
    *,
    attributes: int = 0,
    source: str | None = None,
) -> int:
    """A new, detached mount of a file system of `kind`; a value of None sets a flag option.

    The kernel's own explanation (fsopen(2), "message retrieval") is part of the error.
    """
    context = libc.syscall(
        libc.NR_FSOPEN, "fsopen", c_char_p(kind.encode()), c_uint(_FSOPEN_CLOEXEC), path=kind
    )
    try:
        if source is not None:
            _configure(context, kind, "source", source)
        pairs = options.items() if isinstance(options, Mapping) else options
        for key, value in pairs:
            _configure(context, kind, key, value)
        _fsconfig(context, kind, _FSCONFIG_CMD_CREATE, None, None)
        return libc.syscall(
            libc.NR_FSMOUNT,
            "fsmount",
            c_int(context),
            c_uint(_FSMOUNT_CLOEXEC),
            c_uint(attributes),
            path=kind,
        )
    finally:
        os.close(context)


def _configure(context: int, kind: str, key: str, value: str | None) -> None:
    command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
    _fsconfig(context, kind, command, key, value)


def _fsconfig(context: int, kind: str, command: int, key: str | None, value: str | None) -> None:
    try:
        libc.syscall(
            libc.NR_FSCONFIG,
            "fsconfig",
            c_int(context),
            c_uint(command),
            c_char_p(None if key is None else key.encode()),
            c_char_p(None if value is None else os.fsencode(value)),
            c_int(0),
            path=kind,
        )
    except OSError as error:
        option = f" {key}={value}" if key else ""
        said = _kernel_messages(context)
        raise OSError(error.errno, f"{error.strerror}{option}{said}", kind) from error


def _kernel_messages(context: int) -> str:
    lines = []
    while True:
        try:
            message = os.read(context, 4096)
        except OSError:
            break  # ENODATA: the kernel has said all
        if not message:
            break
        lines.append(message.decode(errors="replace").strip())
    return f" ({'; '.join(lines)})" if lines else ""


def clone_tree(fd: int, path: str = "", *, recursive: bool = False) -> int:
    """A detached copy of the mount at `path` below `fd` (the mount of `fd` itself when empty)."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
    if recursive:
        flags |= AT_RECURSIVE
    if not path:
        flags |= AT_EMPTY_PATH
    return libc.syscall(
        libc.NR_OPEN_TREE,
        "open_tree",
        c_int(fd),
        c_char_p(os.fsencode(path)),
        c_uint(flags),
        path=path or None,
    )


def set_attributes(
    fd: int, *, set: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    """Change the attributes of the mount `fd` (mount_setattr(2))."""
    attr = _MountAttr(attr_set=set, attr_clr=clear, propagation=propagation)
    libc.syscall(
        libc.NR_MOUNT_SETATTR,
        "mount_setattr",
        c_int(fd),
        c_char_p(b""),
        c_uint(AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)),
        ctypes.byref(attr),
        c_size_t(ctypes.sizeof(attr)),
    )


def attach(mount_fd: int, target_fd: int) -> None:
    """Put the detached mount `mount_fd` on top of what `target_fd` refers to."""
    libc.syscall(
        libc.NR_MOVE_MOUNT,
        "move_mount",
        c_int(mount_fd),
        c_char_p(b""),
        c_int(target_fd),
        c_char_p(b""),
        c_uint(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
    )


def bind(source: str, target: str) -> None:
    """Bind `source` over the existing `target`, by path; for files of our own only."""
    tree = clone_tree(AT_FDCWD, source)
    try:
        target_fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
        try:
            attach(tree, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(tree)


def mount_by_path(source: str, target: str, kind: str, options: str) -> None:
    """mount(2), for what the newer calls cannot express on older kernels."""
    libc.check(
        libc.mount(
            os.fsencode(source), os.fsencode(target), kind.encode(), 0, os.fsencode(options)
        ),
        f"mount {kind}",
        target,
    )


def change_propagation(path: str, flags: int) -> None:
    libc.check(libc.mount(None, os.fsencode(path), None, flags, None), "mount", path)


def unmount(path: str, flags: int = 0) -> None:
    libc.check(libc.umount2(os.fsencode(path), flags), "umount", path)


def pivot_into(root_fd: int) -> None:
    """Make `root_fd` the root of this mount namespace and let go of the old one.

    pivot_root(2), "pivot_root(".", ".")": the old root ends on top of the new one and is
    then detached, so that no directory inside the new root is needed.
    """
    os.fchdir(root_fd)
    libc.check(libc.pivot_root(b".", b"."), "pivot_root")
    unmount(".", MNT_DETACH)
    os.chdir("/")


def filesystem_type(fd: int) -> int:
    """The magic number of the file system that `fd` lies on (statfs(2), f_type)."""
    buffer = (ctypes.c_long * 32)()
    libc.check(libc.fstatfs(fd, ctypes.byref(buffer)), "fstatfs")
    return int(buffer[0])


_IN_MEMORY = (TMPFS_MAGIC, RAMFS_MAGIC)
_NOTHING_RUNS = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC


def hold_in_memory(directory: str, source: str) -> None:
    """Make what is written below `directory` stay in memory: a tmpfs, never swapped where the
    kernel can promise that, unless one is there already."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if filesystem_type(place) in _IN_MEMORY:
            return
        tree = _private_tmpfs(source)
        try:
            attach(tree, place)
        finally:
            os.close(tree)
    finally:
        os.close(place)


def _private_tmpfs(source: str) -> int:
    options: list[tuple[str, str | None]] = [("mode", "700")]
    try:
        return new_filesystem(
            "tmpfs", [*options, ("noswap", None)], attributes=_NOTHING_RUNS, source=source
        )
    except OSError:  # noswap came with kernel 6.4
        return new_filesystem("tmpfs", options, attributes=_NOTHING_RUNS, source=source)
