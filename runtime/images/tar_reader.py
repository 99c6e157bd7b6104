"""Reading tar streams: headers checked, names as bytes, nothing interpreted.

Source: POSIX pax(1) "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
"Sparse Formats" and "Extended Attributes". Covered are ustar, v7, GNU long names and
numbers, PAX headers (local and global), GNU sparse files old and 0.0, 0.1, 1.0, and
extended attributes as SCHILY.xattr and LIBARCHIVE.xattr. Go's archive/tar decides where
readers differ, because images are written by it.
"""

from __future__ import annotations

import base64
import binascii
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from runtime.errors import ImageError

BLOCK = 512
CHUNK = 1024 * 1024

FILE = b"0"
LINK = b"1"
SYMLINK = b"2"
CHARACTER = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"S": FILE,
    b"1": LINK,
    b"2": SYMLINK,
    b"3": CHARACTER,
    b"4": BLOCK_DEVICE,
    b"5": DIRECTORY,
    b"6": FIFO,
}
_ZERO = bytes(BLOCK)
_MAX_EXTENDED = 1024 * 1024
_MAX_SPARSE = 1024 * 1024


class Source(Protocol):
    """A stream of bytes; `read` gives at most `size` bytes, none at the end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class Entry:
    """One member: `size` is the length of its content, `sparse` the pieces that are stored.

    Times are nanoseconds since the epoch.
    """

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: tuple[tuple[int, int], ...] | None = None


class TarReader:
    """Iterate over the members of a stream; `chunks` gives the current member's stored bytes.

    What nobody asks for is passed over by the source's `skip`, where it has one.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pass_over: Callable[[int], object] | None = getattr(source, "skip", None)
        self._buffer = b""
        self._position = 0
        self._taken = 0
        self._left = 0
        self._padding = 0
        self._global: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def chunks(self) -> Iterator[memoryview]:
        """The stored bytes of the current member, in pieces."""
        while self._left:
            if self._position >= len(self._buffer):
                self._fill(1)
            end = min(len(self._buffer), self._position + self._left)
            piece = memoryview(self._buffer)[self._position : end]
            self._position = end
            self._left -= len(piece)
            yield piece

    @property
    def offset(self) -> int:
        """Where in the stream the rest of the current member's stored bytes begins."""
        return self._taken - len(self._buffer) + self._position

    def drain(self) -> None:
        """Read what follows the last member to the stream's end, as its digest needs."""
        self._buffer, self._position = b"", 0
        while self._source.read(CHUNK):
            pass

    def _next(self) -> Entry | None:
        self._skip(self._left + self._padding)
        self._left = self._padding = 0
        extended: dict[str, bytes] = {}
        sparse_records: list[tuple[int, int]] = []
        long_name = long_link = None
        while True:
            header = self._block()
            if header is None:
                return None
            if header == _ZERO:
                following = self._block()
                if following is not None and following != _ZERO:
                    raise ImageError("tar: a block of zeros stands before a header")
                return None
            _check_sum(header)
            flag = header[156:157]
            if flag in (b"x", b"X", b"g", b"L", b"K"):
                content = self._extended(header)
                if flag == b"L":
                    long_name = content.rstrip(b"\0")
                elif flag == b"K":
                    long_link = content.rstrip(b"\0")
                elif flag == b"g":
                    self._global |= _pax_records(content, [])
                else:
                    sparse_records = []
                    extended = _pax_records(content, sparse_records)
                continue
            records = {**self._global, **extended} if self._global else extended
            return self._entry(header, records, sparse_records, long_name, long_link)

    def _entry(
        self,
        header: bytes,
        records: dict[str, bytes],
        sparse_records: list[tuple[int, int]],
        long_name: bytes | None,
        long_link: bytes | None,
    ) -> Entry:
        name = records.get("path") or long_name or _header_name(header)
        flag = header[156:157]
        kind = _KINDS.get(flag)
        if kind is None:
            raise ImageError(f"tar: {_shown(name)}: unknown type of entry {flag!r}")
        size = _number(header[124:136])
        stored = _decimal(records["size"]) if "size" in records else size
        mtime = _number(header[136:148]) * 1_000_000_000
        if "mtime" in records:
            mtime = _nanoseconds(records["mtime"])
        if kind is FILE and name.endswith(b"/"):
            kind = DIRECTORY
        if kind is not FILE:
            stored = 0
        if stored < 0:
            raise ImageError(f"tar: {_shown(name)}: the size is negative")
        entry = Entry(
            name=name,
            kind=kind,
            mode=_number(header[100:108]) & 0o7777,
            uid=_decimal(records["uid"]) if "uid" in records else _number(header[108:116]),
            gid=_decimal(records["gid"]) if "gid" in records else _number(header[116:124]),
            size=stored,
            mtime_ns=mtime,
        )
        if kind is LINK or kind is SYMLINK:
            entry.linkname = records.get("linkpath") or long_link or _cut(header[157:257])
        elif kind is CHARACTER or kind is BLOCK_DEVICE:
            entry.major = _number(header[329:337])
            entry.minor = _number(header[337:345])
        if records:
            entry.xattrs = _xattrs(records)
        self._left = stored
        self._padding = -stored % BLOCK
        if flag == b"S":
            self._old_sparse(header, entry)
        elif any(key.startswith("GNU.sparse.") for key in records):
            self._pax_sparse(records, sparse_records, entry)
        if b"\0" in entry.name or b"\0" in entry.linkname:
            raise ImageError(f"tar: {_shown(name)}: a name contains NUL")
        return entry

    def _old_sparse(self, header: bytes, entry: Entry) -> None:
        pieces = _sparse_table(header[386:482])
        extended = header[482] != 0
        while extended:
            block = self._required(BLOCK)
            pieces += _sparse_table(block[:504])
            extended = block[504] != 0
            if len(pieces) > _MAX_SPARSE:
                raise ImageError(f"tar: {_shown(entry.name)}: the sparse map is too long")
        _set_sparse(entry, pieces, _number(header[483:495]), self._left)

    def _pax_sparse(
        self, records: dict[str, bytes], listed: list[tuple[int, int]], entry: Entry
    ) -> None:
        entry.name = records.get("GNU.sparse.name") or entry.name
        real = records.get("GNU.sparse.realsize") or records.get("GNU.sparse.size") or b""
        if records.get("GNU.sparse.major") == b"1":
            pieces = self._sparse_prefix(entry)
        elif "GNU.sparse.map" in records:
            numbers = [_decimal(part) for part in records["GNU.sparse.map"].split(b",") if part]
            if len(numbers) % 2:
                raise ImageError(f"tar: {_shown(entry.name)}: the sparse map is cut")
            pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
        else:
            pieces = listed
        _set_sparse(entry, pieces, _decimal(real), self._left)

    def _sparse_prefix(self, entry: Entry) -> list[tuple[int, int]]:
        """Format 1.0: the map stands before the content, as decimal lines in whole blocks."""
        text = b""
        numbers: list[int] = []
        wanted: int | None = None
        while wanted is None or len(numbers) < wanted:
            if self._left < BLOCK:
                raise ImageError(f"tar: {_shown(entry.name)}: the sparse map is cut")
            text += self._required(BLOCK)
            self._left -= BLOCK
            *lines, text = text.split(b"\n")
            numbers += map(_decimal, lines[: _MAX_SPARSE * 2])
            if wanted is None and numbers:
                wanted = numbers.pop(0) * 2
                if not 0 <= wanted <= _MAX_SPARSE * 2:
                    raise ImageError(f"tar: {_shown(entry.name)}: the sparse map is too long")
        return list(zip(numbers[:wanted:2], numbers[1:wanted:2], strict=True))

    def _extended(self, header: bytes) -> bytes:
        size = _number(header[124:136])
        if not 0 <= size <= _MAX_EXTENDED:
            raise ImageError(f"tar: an extended header of {size} bytes is refused")
        content = self._required(size)
        self._skip(-size % BLOCK)
        return content

    def _block(self) -> bytes | None:
        """The next block; None at a clean end of the stream."""
        start = self._position
        end = start + BLOCK
        if end > len(self._buffer):
            if not self._fill(BLOCK, may_end=True):
                return None
            start, end = self._position, self._position + BLOCK
        self._position = end
        return self._buffer[start:end]

    def _required(self, size: int) -> bytes:
        if len(self._buffer) - self._position < size:
            self._fill(size)
        start = self._position
        self._position = start + size
        return self._buffer[start : start + size]

    def _skip(self, size: int) -> None:
        while size:
            available = len(self._buffer) - self._position
            if not available and self._pass_over is not None:
                self._pass_over(size)
                self._taken += size
                return
            if not available:
                self._fill(1)
                continue
            step = min(size, available)
            self._position += step
            size -= step

    def _fill(self, size: int, *, may_end: bool = False) -> bool:
        """Have at least `size` bytes in the buffer; False at an end that is allowed here."""
        length = len(self._buffer) - self._position
        pieces = [self._buffer[self._position :]] if length else []
        while length < size:
            piece = self._source.read(CHUNK)
            if not piece:
                if may_end and not length:
                    self._buffer, self._position = b"", 0
                    return False
                raise ImageError("tar: the archive is cut")
            pieces.append(piece)
            length += len(piece)
            self._taken += len(piece)
        self._buffer = b"".join(pieces)  # of one alone no copy is made
        self._position = 0
        return True


def _shown(name: bytes) -> str:
    return repr(name[:200].decode(errors="backslashreplace"))


def _cut(field_: bytes) -> bytes:
    return field_.split(b"\0", 1)[0]


def _header_name(header: bytes) -> bytes:
    name = _cut(header[0:100])
    if header[257:263] == b"ustar\0" and (prefix := _cut(header[345:500])):
        return prefix + b"/" + name
    return name


def _number(field_: bytes) -> int:
    """An octal number, or GNU's base-256 where the first bit is set."""
    if field_[0] & 0x80:
        value = int.from_bytes(field_, "big")
        bits = len(field_) * 8
        value &= (1 << (bits - 1)) - 1
        if field_[0] & 0x40:
            value -= 1 << (bits - 1)
        return value
    digits = field_.split(b"\0", 1)[0].strip()
    if not digits:
        return 0
    try:
        return int(digits, 8)
    except ValueError as exc:
        raise ImageError(f"tar: {digits!r} is not an octal number") from exc


def _decimal(digits: bytes) -> int:
    try:
        return int(digits)
    except ValueError as exc:
        raise ImageError(f"tar: {digits[:40]!r} is not a decimal number") from exc


def _nanoseconds(value: bytes) -> int:
    whole, _, fraction = value.partition(b".")
    seconds = _decimal(whole or b"0")
    nanoseconds = _decimal((fraction + b"000000000")[:9])
    return seconds * 1_000_000_000 + (-nanoseconds if value.startswith(b"-") else nanoseconds)


def _check_sum(header: bytes) -> None:
    try:
        stored = _number(header[148:156])
    except ImageError:
        stored = -1
    unsigned = 256 + sum(header) - sum(header[148:156])
    if stored == unsigned:
        return
    high = sum(1 for byte in header[:148] + header[156:] if byte >= 128)
    if stored != unsigned - 256 * high:
        raise ImageError("tar: the checksum of a header is wrong: is it a tar archive?")


def _pax_records(content: bytes, sparse: list[tuple[int, int]]) -> dict[str, bytes]:
    """The records of a PAX header; pairs of sparse format 0.0 go to `sparse`."""
    records: dict[str, bytes] = {}
    position = 0
    offset: int | None = None
    while position < len(content):
        if content[position] == 0:
            break
        space = content.find(b" ", position, position + 20)
        length = _decimal(content[position:space]) if space > 0 else 0
        end = position + length
        record = content[space + 1 : end]
        key, equals, value = record.partition(b"=")
        if length < 5 or end > len(content) or not equals or not value.endswith(b"\n"):
            raise ImageError("tar: an extended header is damaged")
        value = value[:-1]
        name = key.decode(errors="surrogateescape")
        if name == "GNU.sparse.offset":
            offset = _decimal(value)
        elif name == "GNU.sparse.numbytes":
            if offset is None or len(sparse) > _MAX_SPARSE:
                raise ImageError("tar: a sparse map is damaged")
            sparse.append((offset, _decimal(value)))
            offset = None
        records[name] = value
        position = end
    return records


def _xattrs(records: dict[str, bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith("SCHILY.xattr."):
            found[key[13:].encode(errors="surrogateescape")] = value
        elif key.startswith("LIBARCHIVE.xattr."):
            name = urllib.parse.unquote_to_bytes(key[17:].encode(errors="surrogateescape"))
            try:
                decoded = base64.b64decode(value + b"=" * (-len(value) % 4))
            except binascii.Error as exc:
                raise ImageError("tar: an extended attribute is damaged") from exc
            found.setdefault(name, decoded)
    return found


def _sparse_table(table: bytes) -> list[tuple[int, int]]:
    pieces = []
    for start in range(0, len(table) - 23, 24):
        if table[start] == 0:
            break
        pieces.append((_number(table[start : start + 12]), _number(table[start + 12 : start + 24])))
    return pieces


def _set_sparse(entry: Entry, pieces: list[tuple[int, int]], real: int, stored: int) -> None:
    position = total = 0
    for offset, length in pieces:
        if offset < position or length < 0:
            raise ImageError(f"tar: {_shown(entry.name)}: the sparse map overlaps")
        position = offset + length
        total += length
    if position > real or total != stored:
        raise ImageError(f"tar: {_shown(entry.name)}: the sparse map does not fit the content")
    entry.size = real
    entry.sparse = tuple(pieces)
