"""Writing tar headers: ustar where a member fits, a PAX header before it where not.

Source: POSIX pax(1). The bytes depend on the member alone: no user names, no access or
change times, fixed order of records.
"""

from __future__ import annotations

from runtime.images.tar_reader import BLOCK, Entry

_OCTAL_7 = 0o7777777
_OCTAL_11 = 0o77777777777
END = bytes(2 * BLOCK)


def header(entry: Entry) -> bytes:
    """The header blocks of a member; its content follows, padded to whole blocks."""
    records: list[tuple[bytes, bytes]] = []
    name, prefix = _divide(entry.name)
    if name is None:
        records.append((b"path", entry.name))
        name, prefix = entry.name[:100], b""
    link = entry.linkname
    if len(link) > 100 or not link.isascii():
        records.append((b"linkpath", link))
        link = link[:100]
    uid, gid, size = entry.uid, entry.gid, entry.size
    for key, value, most in ((b"uid", uid, _OCTAL_7), (b"gid", gid, _OCTAL_7)):
        if value > most:
            records.append((key, b"%d" % value))
    if size > _OCTAL_11:
        records.append((b"size", b"%d" % size))
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds <= _OCTAL_11:
        records.append((b"mtime", _time(entry.mtime_ns)))
    for key in sorted(entry.xattrs):
        records.append((b"SCHILY.xattr." + key, entry.xattrs[key]))
    block = _block(
        name,
        entry.kind,
        entry.mode,
        uid if uid <= _OCTAL_7 else 0,
        gid if gid <= _OCTAL_7 else 0,
        size if size <= _OCTAL_11 else 0,
        seconds if 0 <= seconds <= _OCTAL_11 else 0,
        link,
        prefix,
        entry.major,
        entry.minor,
    )
    if not records:
        return block
    content = b"".join(_record(key, value) for key, value in sorted(records))
    before = _block(
        b"PaxHeaders.0/" + entry.name.rstrip(b"/").rpartition(b"/")[2][:80],
        b"x",
        0o644,
        0,
        0,
        len(content),
        0,
        b"",
        b"",
        0,
        0,
    )
    return before + content + bytes(-len(content) % BLOCK) + block


def _divide(path: bytes) -> tuple[bytes | None, bytes]:
    """ustar's name and prefix of a path; None where it needs a PAX header."""
    if not path.isascii():
        return None, b""
    if len(path) <= 100:
        return path, b""
    if len(path) > 256:
        return None, b""
    cut = path.rfind(b"/", 0, 156)
    if cut <= 0 or not 0 < len(path) - cut - 1 <= 100:
        return None, b""
    return path[cut + 1 :], path[:cut]


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes,
    prefix: bytes,
    major: int,
    minor: int,
) -> bytes:
    device = b"%07o\0%07o\0" % (major, minor) if kind in (b"3", b"4") else b"0000000\x000000000\0"
    text = b"%-100b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%-100bustar\x0000%64b%b%-155b" % (
        name.ljust(100, b"\0"),
        mode,
        uid,
        gid,
        size,
        mtime,
        kind,
        link.ljust(100, b"\0"),
        bytes(64),
        device,
        prefix.ljust(155, b"\0"),
    )
    text += bytes(BLOCK - len(text))
    return text[:148] + b"%06o\0 " % sum(text) + text[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """One PAX record, whose length counts its own digits."""
    length = len(key) + len(value) + 3
    digits = len(str(length))
    if len(str(length + digits)) > digits:
        digits += 1
    return b"%d %b=%b\n" % (length + digits, key, value)


def _time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    text = b"%b%d" % (sign, seconds)
    return text + b".%09d" % fraction if fraction else text
