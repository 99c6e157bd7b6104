"""Unpacking a layer's tar into overlayfs form.

Source: OCI image-spec layer.md ("Applying Changesets", "Whiteouts"). A member that would
write outside the layer, or that overlayfs would take for one of its own marks, is refused
with its name, and the layer with it. tarfile's filters are not used.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from runtime.errors import ImageError
from runtime.images.merged import MergedTree, Parts, check_depth, is_whiteout, split
from runtime.images.tar_reader import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    Entry,
    Source,
    TarReader,
)
from runtime.images.upper import UpperTree, shown

WHITEOUT = b".wh."
OPAQUE_MARK = b".wh..wh..opq"
_AUFS = b".wh..wh."
_MAX_ID = 2**32 - 2
_REFUSED_XATTRS = (b"trusted.overlay.", b"user.overlay.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds for one layer: members, bytes that are stored, bytes that a sparse file claims."""

    entries: int = 5_000_000
    stored: int = 1 << 38
    apparent: int = 1 << 42


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What a layer turned out to hold: members, and bytes of file content."""

    entries: int
    size: int


def unpack(
    source: Source,
    target: str | os.PathLike[str],
    *,
    lower: MergedTree,
    limits: Limits | None = None,
    privileged: bool | None = None,
) -> Unpacked:
    """Unpack the uncompressed tar `source` into the empty directory `target`.

    `lower` is the tree of the layers below. The source is read to its end. Raises
    ImageError, which names the member at fault; `target` is then to be thrown away.
    """
    if privileged is None:
        privileged = os.geteuid() == 0
    with UpperTree(target, lower, privileged=privileged, follow_own=False) as tree:
        unpacking = _Unpacking(TarReader(source), tree, limits or Limits())
        return unpacking.run()


def extract_archive(
    source: Source,
    tree: UpperTree,
    prefix: Parts,
    *,
    owner: tuple[int, int] | None,
    limits: Limits | None = None,
) -> None:
    """Unpack an archive that is no layer below `prefix`: names like `.wh.x` mean nothing there.

    `owner` replaces the members' own. Raises ImageError as `unpack` does.
    """
    unpacking = _Unpacking(
        TarReader(source), tree, limits or Limits(), prefix=prefix, owner=owner, marks=False
    )
    unpacking.run()


class _Unpacking:
    def __init__(
        self,
        reader: TarReader,
        tree: UpperTree,
        limits: Limits,
        *,
        prefix: Parts = (),
        owner: tuple[int, int] | None = None,
        marks: bool = True,
    ) -> None:
        self._reader = reader
        self._tree = tree
        self._limits = limits
        self._prefix = prefix
        self._owner = owner
        self._marks = marks
        self._directories: dict[Parts, tuple[int, int]] = {}
        self._root_is_opaque = False
        self._size = 0
        self._makers = {
            FILE: self._file,
            DIRECTORY: self._directory,
            SYMLINK: self._symlink,
            LINK: self._link,
            CHARACTER: self._node,
            BLOCK_DEVICE: self._node,
            FIFO: self._node,
        }

    def run(self) -> Unpacked:
        count = 0
        for entry in self._reader:
            count += 1
            if count > self._limits.entries:
                raise ImageError(f"the layer has more than {self._limits.entries} entries")
            try:
                self._apply(entry)
            except ImageError as exc:
                raise ImageError(f"layer entry {_named(entry)} is refused: {exc}") from exc
            except OSError as exc:
                reason = (exc.strerror or str(exc)).lower()
                raise ImageError(f"cannot unpack layer entry {_named(entry)}: {reason}") from exc
        self._reader.drain()
        self._finish()
        return Unpacked(entries=count, size=self._size)

    def _apply(self, entry: Entry) -> None:
        parts = _safe(entry.name)
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        if not 0 <= entry.uid <= _MAX_ID or not 0 <= entry.gid <= _MAX_ID:
            raise ImageError(f"the owner {entry.uid}:{entry.gid} is out of range")
        for part in parts:
            if part.startswith(WHITEOUT):
                if not self._marks:
                    raise ImageError("a name that begins with .wh. cannot be part of an image")
                self._whiteout(parts)
                return
        parts = (*self._prefix, *parts)
        if not parts:
            if entry.kind is not DIRECTORY:
                raise ImageError("the root of a layer must be a directory")
            self._adorn(self._tree.directory(()), entry)
            self._directories[()] = (entry.mode, entry.mtime_ns)
            return
        # The real place may differ from the name where a lower layer has a link on the way.
        above, fd = self._tree.walk(parts[:-1])
        self._makers[entry.kind](entry, (*above, parts[-1]), fd)

    def _file(self, entry: Entry, parts: Parts, fd: int) -> None:
        self._count(entry)
        self._directories.pop(parts, None)
        target = self._tree.create_file(parts, fd)
        try:
            if entry.sparse is None:
                for piece in self._reader.chunks():
                    _write(target, piece)
            else:
                self._sparse(entry, target)
            self._adorn(target, entry)
            os.fchmod(target, entry.mode)
            os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(target)

    def _sparse(self, entry: Entry, target: int) -> None:
        assert entry.sparse is not None
        os.ftruncate(target, entry.size)
        pieces = iter(entry.sparse)
        offset, left = next(pieces, (0, 0))
        for chunk in self._reader.chunks():
            rest = chunk
            while rest:
                while not left:
                    offset, left = next(pieces)
                step = min(left, len(rest))
                written = os.pwrite(target, rest[:step], offset)
                offset, left, rest = offset + written, left - written, rest[written:]

    def _directory(self, entry: Entry, parts: Parts, fd: int) -> None:
        child = self._tree.make_directory(parts, fd)
        self._tree.taken_over.pop(parts, None)
        self._adorn(child, entry)
        self._directories[parts] = (entry.mode, entry.mtime_ns)

    def _symlink(self, entry: Entry, parts: Parts, fd: int) -> None:
        self._directories.pop(parts, None)
        name = parts[-1]
        self._tree.clear_if_there(parts, fd)
        os.symlink(entry.linkname, name, dir_fd=fd)
        if self._tree.privileged:
            os.chown(name, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _link(self, entry: Entry, parts: Parts, fd: int) -> None:
        target = _safe(entry.linkname)
        if not target or any(part.startswith(WHITEOUT) for part in target):
            raise ImageError(f"it is a hard link to {_shown(entry.linkname)}")
        target = self._tree.resolve((*self._prefix, *target), follow=False)
        status = self._tree.status(target)
        if status is None:
            found = self._tree.found(target)
            if found is None or found.is_directory:
                raise ImageError(f"the target of the hard link, {shown(target)!r}, is not there")
            self._tree.take_over(target, found)
        elif stat.S_ISDIR(status.st_mode) or is_whiteout(status):
            raise ImageError(f"it is a hard link to {shown(target)!r}, which is no file")
        if target == parts:
            return
        source_fd, source_name = self._tree.place(target)
        fd = self._tree.directory(parts[:-1])
        self._directories.pop(parts, None)
        self._tree.clear_if_there(parts, fd)
        os.link(source_name, parts[-1], src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)

    def _node(self, entry: Entry, parts: Parts, fd: int) -> None:
        kind = {FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR}.get(entry.kind, stat.S_IFBLK)
        if entry.kind is CHARACTER and not (entry.major or entry.minor):
            raise ImageError("a character device 0:0 is overlayfs' own mark")
        if not 0 <= entry.major < 1 << 12 or not 0 <= entry.minor < 1 << 20:
            raise ImageError(f"the device {entry.major}:{entry.minor} is out of range")
        self._directories.pop(parts, None)
        self._tree.clear_if_there(parts, fd)
        device = os.makedev(entry.major, entry.minor) if entry.kind is not FIFO else 0
        name = parts[-1]
        os.mknod(name, kind | 0o600, device, dir_fd=fd)
        if self._tree.privileged:
            os.chown(name, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
        # Just made by us, so no link can stand here.
        os.chmod(name, entry.mode, dir_fd=fd)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _whiteout(self, parts: Parts) -> None:
        name = parts[-1]
        if any(part.startswith(WHITEOUT) for part in parts[:-1]):
            if parts[0].startswith(_AUFS):
                return  # below aufs' own .wh..wh.plnk and .wh..wh.orph
            raise ImageError("a directory cannot be a whiteout")
        if name == OPAQUE_MARK:
            self._opaque(parts[:-1])
            return
        if name.startswith(_AUFS):
            return  # other marks that only aufs knows
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise ImageError("it is a whiteout of no name")
        above, fd = self._tree.walk(parts[:-1])
        place = (*above, hidden)
        status = self._tree.status(place)
        if status is None:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=fd)
        elif stat.S_ISDIR(status.st_mode):
            # A whiteout speaks of the layers below, whatever the order in the archive.
            self._tree.set_opaque(hidden, fd)
            self._tree.taken_over.pop(place, None)

    def _opaque(self, parts: Parts) -> None:
        real, fd = self._tree.walk(parts)
        if real:
            self._tree.mark_opaque(fd)
        else:
            self._root_is_opaque = True

    def _hide_lower_root(self) -> None:
        """overlayfs does not look for the opaque mark on a layer's root: hide name by name."""
        root = self._tree.directory(())
        for name in self._tree.lower.names(()):
            status = self._tree.status((name,))
            if status is None:
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=root)
            elif stat.S_ISDIR(status.st_mode):
                self._tree.set_opaque(name, root)

    def _adorn(self, fd: int, entry: Entry) -> None:
        """Owner, then attributes: a change of owner drops security.capability."""
        if self._tree.privileged:
            os.fchown(fd, entry.uid, entry.gid)
        for name, value in entry.xattrs.items():
            if name.startswith(_REFUSED_XATTRS):
                continue  # marks of the file system that the layer was made on, not content
            try:
                os.setxattr(fd, name, value)
            except OSError as exc:
                if exc.errno != errno.EOPNOTSUPP and self._tree.privileged:
                    raise

    def _finish(self) -> None:
        if self._root_is_opaque:
            self._hide_lower_root()
        if self._marks and () not in self._directories:
            # The merged root has the attributes of its topmost layer's.
            self._tree.root_like_lower()
        # Deepest first: giving a directory its mode and time comes after its content's.
        self._tree.restore_times()
        for parts in sorted(self._directories, key=len, reverse=True):
            mode, mtime_ns = self._directories[parts]
            fd = self._tree.peek(parts)
            if fd is not None:  # None: a later member replaced it
                os.fchmod(fd, mode)
                os.utime(fd, ns=(mtime_ns, mtime_ns))

    def _count(self, entry: Entry) -> None:
        stored = entry.size if entry.sparse is None else sum(n for _, n in entry.sparse)
        self._size += stored
        if self._size > self._limits.stored:
            raise ImageError(f"the layer holds more than {self._limits.stored} bytes")
        if entry.size > self._limits.apparent:
            raise ImageError(f"it claims {entry.size} bytes")


def _safe(name: bytes) -> Parts:
    """The components of a member's name; a leading "/" means the layer's root."""
    if len(name) > 65536:
        raise ImageError(f"its name is {len(name)} bytes long")
    parts = split(name)
    if b".." in parts:
        raise ImageError("the path contains ..")
    check_depth(parts)
    return parts


def _named(entry: Entry) -> str:
    return _shown(entry.name)


def _shown(name: bytes) -> str:
    text = name[:200].decode(errors="backslashreplace")
    return repr(text if len(name) <= 200 else text + "…")


def _write(fd: int, piece: memoryview) -> None:
    written = os.write(fd, piece)
    while written < len(piece):
        written += os.write(fd, piece[written:])
