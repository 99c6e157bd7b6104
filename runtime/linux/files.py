"""Files: atomic writes, locks, and paths that cannot leave a root (openat2(2)).

A path that somebody else controls (an image, a container) is only ever looked up by
`open_in_root` and its kin: symbolic links are followed as if the root were "/", so that
neither "..", nor an absolute link, nor a race can lead outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from ctypes import c_char_p, c_int, c_size_t, c_uint64

from runtime.linux import libc

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
SYNC_FILE_RANGE_WRITE = 2
_STRETCH = 8 * 1024 * 1024

_HEX = frozenset("0123456789abcdef")


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


def openat2(directory: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); the descriptor is close-on-exec. EAGAIN (a rename raced) is tried again."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    for _attempt in range(128):
        try:
            return libc.syscall(
                libc.NR_OPENAT2,
                "openat2",
                c_int(directory),
                c_char_p(os.fsencode(path)),
                ctypes.byref(how),
                c_size_t(ctypes.sizeof(how)),
                path=path,
            )
        except BlockingIOError:
            continue
    raise OSError(errno.EAGAIN, "openat2: the path kept changing", path)


def open_in_root(root: int, path: str, flags: int = os.O_PATH, *, mode: int = 0) -> int:
    """Open `path` as if the directory `root` were "/"; magic links are refused."""
    return openat2(root, path, flags, mode=mode, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def make_directories_in_root(
    root: int, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0, links: int = 40
) -> int:
    """Open the directory `path` inside `root`, creating what is missing; an O_PATH descriptor.

    Symbolic links are followed inside the root, at most `links` of those that lead to what has
    to be made. Raises OSError (ENOTDIR, ELOOP).
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OSError(errno.EINVAL, "a path inside a container must not contain ..", path)
    try:
        return open_in_root(root, path or "/", os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        pass
    current = open_in_root(root, "/", os.O_PATH | os.O_DIRECTORY)
    try:
        for depth, name in enumerate(parts):
            try:
                below = open_in_root(root, "/".join(parts[: depth + 1]), os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                onward = _beyond_link(current, parts, depth)
                if onward is not None and links:
                    return make_directories_in_root(
                        root, onward, mode=mode, uid=uid, gid=gid, links=links - 1
                    )
                below = _make_directory(current, name, mode, uid, gid)
            os.close(current)
            current = below
        result, current = current, -1
        return result
    finally:
        if current >= 0:
            os.close(current)


def _make_directory(parent: int, name: str, mode: int, uid: int, gid: int) -> int:
    try:
        os.mkdir(name, mode, dir_fd=parent)
        made = True
    except FileExistsError:
        made = False
    below = openat2(
        parent, name, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    )
    if made:
        _dress(below, mode, uid, gid)
    return below


def _dress(directory: int, mode: int, uid: int, gid: int) -> None:
    """Give a directory that was made just now its owner, and the bits that a umask took away."""
    status = os.fstat(directory)
    place = f"/proc/self/fd/{directory}"
    if uid or gid:
        os.chown(place, uid, gid)
    if status.st_mode & 0o777 != mode:
        os.chmod(place, status.st_mode & 0o7000 | mode)


def _beyond_link(parent: int, parts: list[str], depth: int) -> str | None:
    """The path that `parts` stand for if the one at `depth` is a link to what is not there.

    A link that climbs stays as it is: where it leads cannot be told from the text when there
    are links on the way to it.
    """
    try:
        target = os.readlink(parts[depth], dir_fd=parent)
    except OSError:
        return None
    if ".." in target.split("/"):
        return None
    before = [] if target.startswith("/") else parts[:depth]
    return "/".join((*before, target, *parts[depth + 1 :]))


def make_file_in_root(root: int, path: str, *, mode: int = 0o644, links: int = 40) -> int:
    """Open the file at `path` inside `root`, made empty where missing; an O_PATH descriptor.

    Symbolic links are followed as by `make_directories_in_root`.
    """
    try:
        return open_in_root(root, path, os.O_PATH)
    except FileNotFoundError:
        pass
    parent_path, _, name = path.rstrip("/").rpartition("/")
    parent = make_directories_in_root(root, parent_path)
    try:
        onward = _beyond_link(parent, [name], 0) if links else None
        if onward is not None:
            path = onward if onward.startswith("/") else f"{parent_path}/{onward}"
            return make_file_in_root(root, path, mode=mode, links=links - 1)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileExistsError):
            os.close(os.open(name, flags, mode, dir_fd=parent))
        return openat2(parent, name, os.O_PATH, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    finally:
        os.close(parent)


def is_mount_point(directory: int, name: str) -> bool:
    """Whether something is mounted at `name` in the open `directory`, in the tree of mounts that
    it belongs to. The kernel guards only those of the caller's own namespace: elsewhere
    rename(2), unlink(2) and rmdir(2) take the mount away without a word."""
    flags = os.O_PATH | os.O_NOFOLLOW
    try:
        os.close(openat2(directory, name, flags, resolve=RESOLVE_NO_XDEV))
    except OSError as error:
        if error.errno == errno.EXDEV:
            return True
        raise
    return False


def read_in_root(root: int, path: str, *, limit: int = 4 * 1024 * 1024) -> bytes | None:
    """The content of a regular file inside `root`, None where there is none.

    A FIFO, device or directory, and a file over `limit` bytes, raise OSError: the other side
    chose them, and reading must neither block nor fill the memory.
    """
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read(limit)
    finally:
        os.close(fd)


def read_small(path: str | os.PathLike[str]) -> bytes:
    """A file of up to 64 KiB by one read(2), as records, procfs and control groups give it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64 * 1024)
    finally:
        os.close(fd)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable (fsync(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: str | os.PathLike[str]) -> None:
    """Make everything durable in the file system that a directory is in (syncfs(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc.check(libc.syncfs(fd), "syncfs", path=os.fspath(path))
    finally:
        os.close(fd)


def begin_writing(fd: int, before: int, now: int) -> None:
    """Have the kernel begin to write a growing file to the disk (sync_file_range(2)) whenever it
    has passed another 8 MiB, so that a later fsync has little left to wait for.

    The file has just grown from `before` to `now` bytes. A file system may not know how.
    """
    offset, end = before // _STRETCH * _STRETCH, now // _STRETCH * _STRETCH
    if offset == end:
        return
    size = end - offset
    if libc.sync_file_range(fd, offset, size, SYNC_FILE_RANGE_WRITE) < 0:
        error = libc.oserror("sync_file_range")
        if error.errno not in (errno.ESPIPE, errno.EINVAL, errno.ENOSYS):
            raise error


def write_atomically(
    path: str | os.PathLike[str], content: bytes, *, mode: int = 0o644, durable: bool = True
) -> None:
    """Replace `path` by `content` so that a reader sees the old or the new, whole.

    With `durable`, the content survives a power cut once this returns.
    """
    # By the plainest means: what a monitor touches it holds alone.
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.urandom(6).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(directory or ".")


def remove_drafts(directory: str | os.PathLike[str], *, of: str = "", age: float = 0.0) -> None:
    """Remove what `write_atomically` left there when it was killed, of all files or of one.

    Only what is `age` seconds old: where others write at the same time, their drafts are young.
    """
    for name in os.listdir(directory):
        hidden, _, mark = name.rpartition(".")
        if hidden.startswith(f".{of}") and len(mark) == 12 and set(mark) <= _HEX:
            path = os.path.join(directory, name)
            with contextlib.suppress(FileNotFoundError):
                if time.time() - os.lstat(path).st_mtime >= age:
                    os.unlink(path)


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], *, shared: bool = False) -> Iterator[None]:
    """Hold an flock(2) on the file `path`, made when missing; waits for it.

    A lock file that was unlinked or replaced while we waited is opened again.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(fd), os.stat(path))
            except FileNotFoundError:
                same = False
            if not same:
                continue
            yield
            return
        finally:
            os.close(fd)


def try_lock_directory(path: str | os.PathLike[str]) -> int | None:
    """As `try_lock`, on a directory that exists. Raises FileNotFoundError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def try_lock(path: str | os.PathLike[str]) -> int | None:
    """Take an exclusive flock(2) without waiting: the descriptor that holds it, or None."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
