"""Trees of containers as tar streams, in and out: what `cp` makes of "-".

Source: POSIX pax(1), read and written by the standard library; everything else is done by
descriptors (`runtime.container.archive`).
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import IO

from runtime.container import archive
from runtime.container.archive import Attributes, Place, Rules
from runtime.linux import files

_CHUNK = 1024 * 1024


def pack(source: Place, name: str, stream: IO[bytes], rules: Rules) -> None:
    """Write the tree at `source` to `stream` under `name`."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        _pack(tar, source, name, rules)


def _pack(tar: tarfile.TarFile, source: Place, name: str, rules: Rules) -> None:
    status = source.status
    assert status is not None
    member = tarfile.TarInfo(name)
    member.mtime = int(status.st_mtime)
    member.mode = stat.S_IMODE(status.st_mode)
    member.uid, member.gid = status.st_uid, status.st_gid
    if stat.S_ISDIR(status.st_mode):
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
        here = source.open_directory()
        try:
            for entry in sorted(os.listdir(here)):
                try:
                    below = os.stat(entry, dir_fd=here, follow_symlinks=False)
                    _pack(tar, Place(here, entry, below), f"{name}/{entry}", rules)
                except FileNotFoundError:
                    continue  # gone since it was listed
        finally:
            os.close(here)
    elif stat.S_ISREG(status.st_mode):
        fd = archive.open_file(source)
        with os.fdopen(fd, "rb") as file:
            member.size = os.fstat(fd).st_size
            tar.addfile(member, _Exactly(file))
    elif stat.S_ISLNK(status.st_mode):
        member.type = tarfile.SYMTYPE
        member.linkname = os.readlink(source.name, dir_fd=source.directory)
        tar.addfile(member)
    else:
        rules.skipped(name)


class _Exactly(io.RawIOBase):
    """A file that ends early gives zeros for the rest: the header has promised its size."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size).ljust(max(size, 0), b"\0")


def unpack(stream: IO[bytes], directory: int, rules: Rules) -> None:
    """Extract a stream, plain or compressed, into the open `directory`.

    Names are taken relative to it, and links of the archive lead nowhere outside. Raises OSError,
    tarfile.TarError.
    """
    with tarfile.open(fileobj=stream, mode="r|*") as tar:
        for member in tar:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if ".." in parts:
                raise OSError(errno.EINVAL, "a name in the archive leads outside", member.name)
            if not parts:
                continue
            above = files.make_directories_in_root(directory, "/".join(parts[:-1]))
            try:
                _extract(tar, member, above, parts[-1], directory, rules)
            finally:
                os.close(above)


def _extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, above: int, name: str, top: int, rules: Rules
) -> None:
    if member.isdir():
        made = archive.make_directory(above, name)
        try:
            archive.dress(made, _attributes(member), rules)
        finally:
            os.close(made)
    elif member.isreg():
        content = tar.extractfile(member)
        assert content is not None
        archive.write_file(above, name, _attributes(member), _pieces(content), rules)
    elif member.issym():
        archive.write_link(above, name, member.linkname)
    elif member.islnk():
        first = files.open_in_root(top, member.linkname)
        try:
            place = Place(first, "", os.fstat(first))
            archive.copy(place, above, name, rules)
        finally:
            os.close(first)
    else:
        rules.skipped(member.name)


def _attributes(member: tarfile.TarInfo) -> Attributes:
    return Attributes(
        mode=stat.S_IMODE(member.mode),
        uid=member.uid,
        gid=member.gid,
        mtime_ns=int(member.mtime * 1e9),
    )


def _pieces(content: IO[bytes]) -> Iterator[bytes]:
    while piece := content.read(_CHUNK):
        yield piece
