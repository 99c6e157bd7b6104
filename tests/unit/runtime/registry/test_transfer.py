"""Bytes between sockets and files."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.registry.transfer import drain, gathered, read_pieces, side_by_side, together


async def pieces(*values: bytes) -> AsyncIterator[bytes]:
    for value in values:
        yield value


def test_small_pieces_are_gathered() -> None:
    async def scenario() -> list[bytes]:
        return [piece async for piece in gathered(pieces(b"ab", b"c", b"defg", b"h"), 3)]

    assert asyncio.run(scenario()) == [b"abc", b"defg", b"h"]


def test_what_was_read_before_a_failure_is_written() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1_999_000
        yield b"x" * 1000
        raise ConnectionResetError

    written = bytearray()

    async def scenario() -> None:
        with pytest.raises(ConnectionResetError):
            await drain(broken(), written.extend)

    asyncio.run(scenario())
    assert len(written) == 2_000_000


def test_a_write_that_fails_ends_the_transfer() -> None:
    def refuse(_piece: bytes) -> None:
        raise OSError(28, "no space")

    async def scenario() -> None:
        with pytest.raises(OSError, match="no space"):
            await drain(pieces(b"a" * 1_100_000, b"b" * 1_100_000), refuse)

    asyncio.run(scenario())


def test_part_of_a_file_is_read(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    path = tmp_path / "file"
    path.write_bytes(content)

    async def scenario() -> bytes:
        with open(path, "rb", buffering=0) as file:
            return b"".join([piece async for piece in read_pieces(file, 1000, 2_000_000)])

    assert asyncio.run(scenario()) == content[1000:2_001_000]


def test_a_file_that_is_too_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")

    async def scenario() -> None:
        with open(path, "rb", buffering=0) as file, pytest.raises(EOFError, match="shorter"):
            async for _piece in read_pieces(file, 0, 5):
                pass

    asyncio.run(scenario())


def test_no_more_than_the_limit_run_at_once_and_a_failure_ends_all() -> None:
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(0)
            if number == 5:
                raise ValueError("five")
            return number
        finally:
            running -= 1

    async def scenario() -> None:
        good = await side_by_side([functools.partial(work, n) for n in range(5)], 2)
        assert good == [0, 1, 2, 3, 4]
        with pytest.raises(ValueError, match="five"):
            await side_by_side([functools.partial(work, n) for n in range(9)], 2)

    asyncio.run(scenario())
    assert (most, running) == (2, 0)


def test_the_first_failure_is_raised_alone() -> None:
    async def fail() -> None:
        raise ValueError("one")

    async def wait() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        with pytest.raises(ValueError, match="one"):
            await together([wait(), fail()])

    asyncio.run(scenario())
