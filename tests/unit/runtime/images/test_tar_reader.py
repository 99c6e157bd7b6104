"""Reading tar headers of every kind that layers come in."""

from __future__ import annotations

import io
import tarfile

import pytest

from runtime.errors import ImageError
from runtime.images.tar_reader import FILE, Entry, TarReader
from runtime.images.tar_writer import END, header
from tests.unit.runtime.images.archives import archive, by_tarfile, member


def read(source: io.BytesIO) -> list[tuple[Entry, bytes]]:
    reader = TarReader(source)
    return [(entry, b"".join(bytes(piece) for piece in reader.chunks())) for entry in reader]


@pytest.mark.parametrize("build_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT,
                                          tarfile.PAX_FORMAT])  # fmt: skip
def test_what_the_standard_library_writes_is_read(build_format: int) -> None:
    found = read(by_tarfile(build_format, a=b"1", b=b"x" * 5000, c=b""))
    assert [(entry.name, content) for entry, content in found] == [
        (b"a", b"1"),
        (b"b", b"x" * 5000),
        (b"c", b""),
    ]
    assert found[0][0].mtime_ns == 1_700_000_000 * 10**9


@pytest.mark.parametrize("build_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_links_are_read(build_format: int) -> None:
    out = io.BytesIO()
    name, target = "d/" * 200 + "é" * 50, "t" * 5000
    with tarfile.open(fileobj=out, mode="w", format=build_format) as tar:
        info = tarfile.TarInfo(name)
        info.type = tarfile.SYMTYPE
        info.linkname = target
        tar.addfile(info)
    out.seek(0)
    [(entry, _)] = read(out)
    assert (entry.name, entry.linkname) == (name.encode(), target.encode())


@pytest.mark.parametrize(
    "entry",
    [
        Entry(name=b"a", kind=FILE, mode=0o644, uid=0, gid=0, size=0, mtime_ns=0),
        Entry(name=b"p/" * 60 + b"n", kind=FILE, mode=0o7777, uid=1, gid=2, size=0, mtime_ns=10**9),
        Entry(name=b"x" * 300, kind=FILE, mode=0, uid=2**31, gid=2**32 - 2, size=0,
              mtime_ns=1_700_000_000_123_456_789),
        Entry(name="ü".encode(), kind=FILE, mode=0o600, uid=0, gid=0, size=0, mtime_ns=-5 * 10**8,
              xattrs={b"user.a": b"\0\n=", b"security.capability": b"x" * 300}),
    ],
)  # fmt: skip
def test_what_is_written_is_read_again(entry: Entry) -> None:
    [(again, _)] = read(io.BytesIO(header(entry) + END))
    assert again == entry
    with tarfile.open(fileobj=io.BytesIO(header(entry) + END)) as tar:
        info = tar.next()
    assert info is not None
    assert info.name.encode(errors="surrogateescape") == entry.name
    assert (info.uid, info.gid, info.mode) == (entry.uid, entry.gid, entry.mode)


def test_a_nanosecond_time_is_kept() -> None:
    [(entry, _)] = read(archive(member("a", mtime_ns=1_234_567_890_000_000_001)))
    assert entry.mtime_ns == 1_234_567_890_000_000_001


def sparse_1_0() -> bytes:
    records = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "s",
        "GNU.sparse.realsize": "10000",
    }
    table = b"2\n0\n3\n9000\n4\n"
    content = table + bytes(-len(table) % 512) + b"abcdefg"
    info = tarfile.TarInfo("GNUSparseFile.0/s")
    info.size = len(content)
    info.pax_headers = records
    head = info.tobuf(tarfile.PAX_FORMAT)
    return head + content + bytes(-len(content) % 512)


def test_a_sparse_file_is_read_in_pieces() -> None:
    [(entry, content)] = read(archive(sparse_1_0()))
    assert entry.name == b"s"
    assert entry.size == 10000
    assert entry.sparse == ((0, 3), (9000, 4))
    assert content == b"abcdefg"


def test_an_old_gnu_sparse_file_is_read() -> None:
    block = bytearray(tarfile.TarInfo("s").tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    block[124:136] = b"%011o\0" % 7
    block[386:410] = b"%011o\0%011o\0" % (0, 3)
    block[410:434] = b"%011o\0%011o\0" % (9000, 4)
    block[483:495] = b"%011o\0" % 10000
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    [(entry, content)] = read(archive(bytes(block) + b"abcdefg" + bytes(505)))
    assert (entry.size, entry.sparse, content) == (10000, ((0, 3), (9000, 4)), b"abcdefg")


@pytest.mark.parametrize("cut", [1, 511, 512, 700, 1023])
def test_a_cut_archive_is_refused(cut: int) -> None:
    whole = member("a", b"x" * 600)
    with pytest.raises(ImageError):
        read(io.BytesIO(whole[:cut]))


def test_an_archive_without_end_blocks_is_read() -> None:
    assert len(read(io.BytesIO(member("a", b"x")))) == 1


@pytest.mark.parametrize("position", [0, 100, 130, 150, 300])
def test_a_damaged_header_is_refused(position: int) -> None:
    block = bytearray(member("a", b"x"))
    block[position] ^= 0x55
    with pytest.raises(ImageError):
        read(archive(bytes(block)))


def test_an_unknown_kind_is_refused_with_its_name() -> None:
    with pytest.raises(ImageError, match="strange"):
        read(archive(member("strange", kind=b"V")))


@pytest.mark.parametrize(
    "content", [b"5 path=x\n", b"99 path=x\n", b"x", b"10 path=xx", b"-1 a=\n"]
)
def test_a_damaged_pax_header_is_refused(content: bytes) -> None:
    with pytest.raises(ImageError):
        read(archive(member("PaxHeaders/a", content, kind=b"x"), member("a")))


def test_a_huge_pax_header_is_not_read() -> None:
    entry = Entry(name=b"p", kind=b"x", mode=0, uid=0, gid=0, size=1 << 30, mtime_ns=0)
    with pytest.raises(ImageError):
        read(io.BytesIO(header(entry)))


def test_a_name_with_nul_is_refused() -> None:
    record = b"14 path=a\0/b/\n"
    assert len(record) == 14
    with pytest.raises(ImageError, match="NUL"):
        read(archive(member("PaxHeaders/a", record, kind=b"x"), member("a")))
