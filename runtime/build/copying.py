"""Writing what COPY and ADD selected into a new layer.

The destination is looked up by descriptor in the image's own tree: links of the image such
as /lib -> usr/lib are followed inside it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.build.chmod import Chmod
from runtime.build.sources import Item, Selected, SourceTree
from runtime.container import identity
from runtime.errors import RuntimeFault
from runtime.images.merged import Found, Parts, split
from runtime.images.upper import UpperTree, shown
from runtime.linux.copying import copy_content


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where to copy: an absolute path, and whether it must be a directory."""

    path: str
    directory: bool


class CopyRefused(Exception):
    """The copy cannot be made as asked."""


def parse_owner(text: str, passwd: bytes | None, group: bytes | None) -> Owner:
    """`--chown`: `user[:group]`, names by the image's own files.

    A number without group is its own group's number (reference.md, "COPY --chown").
    """
    user, _, group_name = text.partition(":")
    try:
        found = identity.resolve(user, passwd, group)
        gid = found.uid if user.isdigit() else found.gid
        if group_name:
            gid = identity.resolve(f"0:{group_name}", passwd, group).gid
    except RuntimeFault as exc:
        raise CopyRefused(f"--chown={text}: {exc}") from exc
    return Owner(uid=found.uid, gid=gid)


class Copier:
    """Copies into `upper`; `owner` and `mode`, where given, replace those of the sources.

    With `share`, files become hard links to the source's own: for trees that nobody changes.
    """

    def __init__(
        self,
        upper: UpperTree,
        source: SourceTree,
        *,
        owner: Owner | None,
        mode: Chmod | None,
        share: bool = False,
    ) -> None:
        self._upper = upper
        self._source = source
        self._share = share
        self._owner = owner
        self._mode = mode
        self._links: dict[tuple[int, int], Parts] = {}
        self._times: dict[Parts, int] = {}

    def copy(
        self,
        selected: Selected,
        items: Sequence[Item],
        destination: Destination,
    ) -> None:
        """Copy one selection; raises CopyRefused or OSError."""
        wanted = split(os.fsencode(destination.path))
        real = self._upper.resolve(wanted)
        there = self._upper.found(real)
        if selected.prefix:
            for item in items:
                self._one(item, (*real, *item.relative))
        elif selected.is_directory:
            if there is not None and not there.is_directory:
                raise CopyRefused(f"cannot copy a directory over the file {destination.path}")
            self._contents(items, real, existed=there is not None)
        else:
            if destination.directory or (there is not None and there.is_directory):
                target = (*real, selected.name)
            else:
                # A link at the destination's own name is replaced, not written through.
                target = self._upper.resolve(wanted, follow=False)
            self._one(items[0], target)
        self._finish()

    def copy_as(self, items: Sequence[Item], destination: Destination) -> None:
        """Copy a selection to exactly the destination's path, a directory as that directory."""
        target = split(os.fsencode(destination.path))
        for item in items:
            self._one(item, (*target, *item.relative))
        self._finish()

    def write(self, name: str, content: bytes, mtime_ns: int, destination: Destination) -> None:
        """Put a here-document's content into a file."""
        wanted = split(os.fsencode(destination.path))
        real = self._upper.resolve(wanted)
        there = self._upper.found(real)
        if destination.directory or (there is not None and there.is_directory):
            real = (*real, os.fsencode(name))
        target = self._new_file(real)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(target, view) :]
            self._own(target, 0, 0)
            os.fchmod(target, self._changed_mode(0o644, directory=False))
            os.utime(target, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(target)

    def place(self, path: Path, name: str, mtime: int, destination: Destination) -> None:
        """Put a file that was fetched at its place; `name` is needed for a directory."""
        wanted = split(os.fsencode(destination.path))
        real = self._upper.resolve(wanted)
        there = self._upper.found(real)
        if destination.directory or (there is not None and there.is_directory):
            if not name:
                raise CopyRefused("the URL gives no name for a file in the directory")
            real = (*real, os.fsencode(name))
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            target = self._new_file(real)
            try:
                copy_content(source, target)
                self._own(target, 0, 0)
                os.fchmod(target, self._changed_mode(0o600, directory=False))
                os.utime(target, (mtime, mtime))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _new_file(self, parts: Parts) -> int:
        real, _ = self._place(parts)
        here = self._upper.found(real)
        if here is not None and here.is_directory:
            raise CopyRefused(f"cannot copy a file over the directory {shown(real)}")
        return self._upper.create_file(real, self._upper.directory(real[:-1]))

    def _contents(self, items: Sequence[Item], target: Parts, *, existed: bool) -> None:
        for item in items:
            if item.relative or not existed:
                self._one(item, (*target, *item.relative))
            else:
                self._directory_at(target)

    def _one(self, item: Item, target: Parts) -> None:
        status = item.status
        if stat.S_ISDIR(status.st_mode):
            self._directory(item, target)
            return
        found = self._source.tree.entry(item.parts)
        if found is None:
            raise CopyRefused(f"{shown(item.parts)} vanished while it was copied")
        target, fd = self._place(target)
        here = self._upper.found(target)
        if here is not None and here.is_directory:
            raise CopyRefused(f"cannot copy a file over the directory {shown(target)}")
        # The look-up above may have closed it.
        fd = self._upper.directory(target[:-1])
        if stat.S_ISREG(status.st_mode):
            self._file(item, found, target, fd)
        elif stat.S_ISLNK(status.st_mode):
            self._upper.clear_if_there(target, fd)
            os.symlink(found.readlink(), target[-1], dir_fd=fd)
            self._adorn_name(item, target[-1], fd)
        elif stat.S_ISSOCK(status.st_mode):
            return  # a layer holds no sockets
        else:
            self._upper.clear_if_there(target, fd)
            os.mknod(target[-1], status.st_mode, status.st_rdev, dir_fd=fd)
            self._adorn_name(item, target[-1], fd)
            os.chmod(target[-1], self._mode_of(status), dir_fd=fd)  # just made, so no link

    def _directory(self, item: Item, target: Parts) -> None:
        real, fd = self._directory_at(target)
        self._own(fd, *self._source.owner(item.status))
        found = self._source.tree.entry(item.parts)
        if found is not None:
            source = found.open(os.O_RDONLY | os.O_DIRECTORY)
            try:
                _copy_attributes(source, fd)
            finally:
                os.close(source)
        os.fchmod(fd, self._mode_of(item.status))
        self._times[real] = item.status.st_mtime_ns

    def _file(self, item: Item, found: Found, target: Parts, fd: int) -> None:
        status = item.status
        if self._share:
            self._upper.clear_if_there(target, fd)
            os.link(
                found.name,
                target[-1],
                src_dir_fd=found.directory,
                dst_dir_fd=fd,
                follow_symlinks=False,
            )
            return
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and (first := self._links.get(key)) is not None:
            self._upper.clear_if_there(target, fd)
            first_fd = self._upper.directory(first[:-1])
            fd = self._upper.directory(target[:-1])
            os.link(first[-1], target[-1], src_dir_fd=first_fd, dst_dir_fd=fd)
            return
        source = found.open()
        try:
            written = self._upper.create_file(target, fd)
            try:
                copy_content(source, written)
                self._own(written, *self._source.owner(status))
                _copy_attributes(source, written)
                os.fchmod(written, self._mode_of(status))
                os.utime(written, ns=(status.st_mtime_ns, status.st_mtime_ns))
            finally:
                os.close(written)
        finally:
            os.close(source)
        if status.st_nlink > 1:
            self._links[key] = target

    def _place(self, target: Parts) -> tuple[Parts, int]:
        above, fd = self._directory_at(target[:-1])
        return (*above, target[-1]), fd

    def _directory_at(self, parts: Parts) -> tuple[Parts, int]:
        owner = self._owner or Owner(uid=0, gid=0)
        try:
            return self._upper.walk(parts, uid=owner.uid, gid=owner.gid)
        except NotADirectoryError as exc:
            raise CopyRefused(f"{shown(parts)}: a part of the path is no directory") from exc

    def _own(self, fd: int, uid: int, gid: int) -> None:
        if self._upper.privileged:
            owner = self._owner or Owner(uid=uid, gid=gid)
            os.fchown(fd, owner.uid, owner.gid)

    def _mode_of(self, status: os.stat_result) -> int:
        directory = stat.S_ISDIR(status.st_mode)
        return self._changed_mode(stat.S_IMODE(status.st_mode), directory=directory)

    def _changed_mode(self, mode: int, *, directory: bool) -> int:
        return mode if self._mode is None else self._mode.apply(mode, directory=directory)

    def _adorn_name(self, item: Item, name: bytes, fd: int) -> None:
        status = item.status
        if self._upper.privileged:
            uid, gid = self._source.owner(status)
            owner = self._owner or Owner(uid=uid, gid=gid)
            os.chown(name, owner.uid, owner.gid, dir_fd=fd, follow_symlinks=False)
        times = (status.st_mtime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)

    def _finish(self) -> None:
        """Directories get their times last: filling them changed them."""
        for parts in sorted(self._times, key=len, reverse=True):
            fd = self._upper.directory(parts)
            os.utime(fd, ns=(self._times[parts], self._times[parts]))
        self._times.clear()


def _copy_attributes(source: int, target: int) -> None:
    for name in os.listxattr(source):
        if (
            name.startswith("user.") and not name.startswith("user.overlay.")
        ) or name == "security.capability":
            os.setxattr(target, name, os.getxattr(source, name))
