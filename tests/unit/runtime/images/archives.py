"""Archives for the tests, made member by member, damaged where wanted."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

from runtime.images.tar_reader import DIRECTORY, FILE, LINK, SYMLINK, Entry
from runtime.images.tar_writer import END, header


def member(
    name: str | bytes,
    content: bytes = b"",
    *,
    kind: bytes = FILE,
    to: str | bytes = b"",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = 0,
    major: int = 0,
    minor: int = 0,
    xattrs: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """One member, header and content, without the archive's end."""
    entry = Entry(
        name=name.encode() if isinstance(name, str) else name,
        kind=kind,
        mode=mode,
        uid=uid,
        gid=gid,
        size=len(content),
        mtime_ns=mtime_ns,
        linkname=to.encode() if isinstance(to, str) else to,
        major=major,
        minor=minor,
        xattrs=dict(xattrs or {}),
    )
    return header(entry) + content + bytes(-len(content) % 512)


def directory(name: str, mode: int = 0o755, mtime_ns: int = 0) -> bytes:
    return member(name + "/", kind=DIRECTORY, mode=mode, mtime_ns=mtime_ns)


def symlink(name: str, to: str) -> bytes:
    return member(name, kind=SYMLINK, to=to)


def hardlink(name: str, to: str) -> bytes:
    return member(name, kind=LINK, to=to)


def archive(*members: bytes) -> io.BytesIO:
    return io.BytesIO(b"".join(members) + END)


def by_tarfile(build_format: int, **members: bytes) -> io.BytesIO:
    """An archive written by the standard library, as a second opinion."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=build_format) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mtime = 1_700_000_000
            tar.addfile(info, io.BytesIO(content))
    out.seek(0)
    return out
