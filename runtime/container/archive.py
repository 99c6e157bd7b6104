"""Copies files between a container and the host, by descriptors alone.

Paths in a container (`runtime.container.tree`) are resolved by the kernel with its root as "/"
(openat2(2), RESOLVE_IN_ROOT), and below it every name is looked up on its own and never followed,
so that links which are swapped meanwhile lead nowhere (CVE-2018-15664). Nothing of the container's
is executed or loaded (CVE-2019-14271).

Device nodes and sockets are left out. Files that come out of a container lose their set-user-ID
and set-group-ID bits: their owner is another one out here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from runtime.linux import files

_CHUNK = 1024 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = stat.S_ISUID | stat.S_ISGID

Skipped = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a tree is copied: `archive` keeps owners, else they are root's; `plain` drops the
    set-user-ID and set-group-ID bits. `skipped` is told of what cannot be copied."""

    archive: bool
    plain: bool
    skipped: Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Mode bits, owner and time (ns since 1970) of a file that is to be made."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int

    @classmethod
    def of(cls, fd: int) -> Self:
        status = os.fstat(fd)
        return cls(
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
        )


@dataclass(slots=True)
class Place:
    """A name in an open directory; `into` asks for what is in it.

    `status` is None where there is nothing of that name. Without a name `directory` is the
    opened file itself.
    """

    directory: int
    name: str
    status: os.stat_result | None
    into: bool = False

    @property
    def is_directory(self) -> bool:
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    def open_directory(self) -> int:
        return os.open(self.name, _DIRECTORY, dir_fd=self.directory)

    def close(self) -> None:
        os.close(self.directory)


def find(root: int | None, path: str, *, follow: bool) -> Place:
    """Look up `path` in the container below `root`, or on the host where that is None.

    `follow` also follows a link that the last name is, as a slash at the end does. Raises
    FileNotFoundError where even the directory above it is missing, NotADirectoryError where a
    slash follows what is none.
    """
    contents = path.endswith("/.") or path == "."
    as_directory = path.endswith("/") or contents
    plain = os.path.normpath("/" + path) if root is not None else os.path.normpath(path)
    if follow or as_directory or plain in ("/", ".", "..") or plain.endswith("/.."):
        with contextlib.suppress(FileNotFoundError):
            opened = _open(root, plain)
            status = os.fstat(opened)
            if stat.S_ISDIR(status.st_mode):
                return Place(opened, ".", status, into=contents)
            if as_directory:
                os.close(opened)
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            return Place(opened, "", status)
    return _named(_open(root, os.path.dirname(plain) or "."), os.path.basename(plain))


def _open(root: int | None, path: str) -> int:
    if root is None:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    return files.open_in_root(root, path, os.O_PATH)


def _named(directory: int, name: str) -> Place:
    if not stat.S_ISDIR(os.fstat(directory).st_mode):
        os.close(directory)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
    try:
        status: os.stat_result | None = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        status = None
    return Place(directory, name, status)


def open_file(place: Place) -> int:
    """Open the regular file at `place` for reading; what is swapped for it blocks nothing."""
    if not place.name:
        return os.open(f"/proc/self/fd/{place.directory}", os.O_RDONLY | os.O_CLOEXEC)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(place.name, flags, dir_fd=place.directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file any more", place.name)
    return fd


def deliver(source: Place, name: str, root: int | None, path: str, rules: Rules) -> None:
    """Copy `source`, called `name`, to `path` by the rules of docker cp.

    A directory that is there gets it under its name, or with `into` what is in it; what is not
    there is made. Raises OSError.
    """
    target = _destination(root, path)
    try:
        if target.name == ".":
            inside = target.open_directory()
            try:
                if source.is_directory and source.into:
                    _copy_inside(source, inside, rules)
                else:
                    copy(source, inside, name, rules)
            finally:
                os.close(inside)
        elif source.is_directory:
            made = make_directory(target.directory, target.name)
            try:
                _copy_inside(source, made, rules)
            finally:
                os.close(made)
        elif path.endswith("/"):
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        else:
            copy(source, target.directory, target.name, rules)
    finally:
        target.close()


def _destination(root: int | None, path: str) -> Place:
    """A directory that is there as its own ".", else a name in the directory above it."""
    with contextlib.suppress(FileNotFoundError):
        found = find(root, path, follow=True)
        if found.is_directory:
            return found
        found.close()
    return find(root, path.rstrip("/"), follow=False)


def _copy_inside(source: Place, target: int, rules: Rules) -> None:
    here = source.open_directory()
    try:
        copy_contents(here, target, rules)
    finally:
        os.close(here)


def copy(source: Place, directory: int, name: str, rules: Rules) -> None:
    """Copy what is at `source` into the open `directory` as `name`, over what is there.

    A directory is merged with one that is there. Raises OSError.
    """
    status = source.status
    assert status is not None
    if stat.S_ISDIR(status.st_mode):
        here = source.open_directory()
        try:
            target = make_directory(directory, name)
            try:
                copy_contents(here, target, rules)
                dress(target, Attributes.of(here), rules)
            finally:
                os.close(target)
        finally:
            os.close(here)
    elif stat.S_ISREG(status.st_mode):
        opened = open_file(source)
        try:
            write_file(directory, name, Attributes.of(opened), _chunks(opened), rules)
        finally:
            os.close(opened)
    elif stat.S_ISLNK(status.st_mode):
        write_link(directory, name, os.readlink(source.name, dir_fd=source.directory))
    else:
        rules.skipped(source.name)


def copy_contents(source: int, target: int, rules: Rules) -> None:
    """Copy everything in one open directory into another."""
    for name in sorted(os.listdir(source)):
        place = Place(source, name, None)
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed
            place.status = os.stat(name, dir_fd=source, follow_symlinks=False)
            copy(place, target, name, rules)


def make_directory(directory: int, name: str) -> int:
    """The directory `name`, made where missing, opened."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=directory)
    return os.open(name, _DIRECTORY, dir_fd=directory)


def write_file(
    directory: int, name: str, like: Attributes, content: Iterator[bytes], rules: Rules
) -> None:
    """Put a new file in the place of `name`; what is there goes, a link is not followed."""
    _clear(directory, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        for piece in content:
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        dress(fd, like, rules)
    finally:
        os.close(fd)


def write_link(directory: int, name: str, target: str) -> None:
    _clear(directory, name)
    os.symlink(target, name, dir_fd=directory)


def _clear(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except IsADirectoryError as error:
        raise IsADirectoryError(
            errno.EISDIR, "cannot put a file in the place of a directory", name
        ) from error


def dress(fd: int, like: Attributes, rules: Rules) -> None:
    """Give the opened file or directory the owner, mode and times of `like`, by the rules.

    Owner first: a change of owner clears special bits (chown(2)).
    """
    if rules.archive:
        os.fchown(fd, like.uid, like.gid)
    os.fchmod(fd, like.mode & ~_SPECIAL if rules.plain else like.mode)
    os.utime(fd, ns=(like.mtime_ns, like.mtime_ns))


def _chunks(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, _CHUNK):
        yield piece
