"""Clients that ask for too much, or do not keep to the rules: the server stays bounded."""

from __future__ import annotations

import asyncio
import gzip
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from runtime.registry.server.app import REGISTRY, create_server
from runtime.registry.server.config import Limits, ServerConfig
from runtime.registry.server.refusals import Refusal
from tests.integration.registry.wire import Wire, digest_of, wired

MIB = 1024 * 1024


async def endless() -> AsyncIterator[bytes]:
    piece = b"\0" * MIB
    while True:
        yield piece


def stored(directory: Path) -> int:
    return sum(f.stat().st_size for f in (directory / "registry" / "uploads").iterdir())


def test_an_upload_without_end_is_ended_at_the_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with wired(tmp_path, limits=Limits(blob=8 * MIB)) as wire:
            place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
            try:
                reply = await wire("PATCH", place, endless())
                assert (reply.status, reply.code) == (413, "SIZE_INVALID")
            except (ConnectionError, aiohttp.ClientError):
                pass  # the server need not read what it has refused
            assert stored(tmp_path) <= 9 * MIB
            assert (await wire("GET", "/v2/")).status == 200

    asyncio.run(scenario())


def test_a_body_that_says_it_is_too_long_is_refused_unread(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with wired(tmp_path, limits=Limits(blob=10)) as wire:
            place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
            reply = await wire("PATCH", place, b"x" * 11)
            assert (reply.status, reply.code) == (413, "SIZE_INVALID")
            reply = await wire("PATCH", place, b"x" * 6)
            reply = await wire("PATCH", place, b"x" * 6)
            assert reply.status == 413, "over several requests too"

    asyncio.run(scenario())


def test_a_disk_that_is_nearly_full_takes_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with wired(tmp_path, limits=Limits(minimum_free=1 << 60)) as wire:
            place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
            reply = await wire("PATCH", place, b"x")
            assert (reply.status, reply.code) == (507, "DENIED")

    asyncio.run(scenario())


def test_uploads_at_once_are_bounded_whoever_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with wired(tmp_path, limits=Limits(uploads=20)) as wire:
            gate = asyncio.Semaphore(64)

            async def start() -> int:
                async with gate:
                    reply = await wire("POST", "/v2/a/blobs/uploads/", b"")
                    if reply.status == 429:
                        assert reply.code == "TOOMANYREQUESTS"
                        assert reply.headers["Retry-After"].isdecimal()
                    return reply.status

            statuses = await asyncio.gather(*(start() for _ in range(500)))
            assert sorted(set(statuses)) == [202, 429]
            assert statuses.count(202) == 20
            files = list((tmp_path / "registry" / "uploads").iterdir())
            assert len(files) == 2 * 20

    asyncio.run(scenario())


def test_a_hundred_thousand_who_want_to_upload_cost_little(tmp_path: Path) -> None:
    config = ServerConfig(storage=tmp_path, limits=Limits(uploads=100))
    registry = create_server(config)[REGISTRY]

    async def scenario() -> None:
        refused = 0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(100_000):
            try:
                await registry.uploads.open("a")
            except Refusal as refusal:
                assert refusal.status == 429
                refused += 1
        assert refused == 99_900
        assert len(list((tmp_path / "uploads").iterdir())) == 200
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
        async for _ in registry.run(None):  # type: ignore[arg-type]  # the application is not looked at
            break

    asyncio.run(scenario())


def test_idle_uploads_make_place_and_old_ones_are_dropped(tmp_path: Path) -> None:
    now = 1000.0
    config = ServerConfig(storage=tmp_path, limits=Limits(uploads=2, upload_expiry=3600))
    registry = create_server(config)[REGISTRY]
    registry.storage.clock = lambda: now

    async def scenario() -> None:
        nonlocal now
        first = await registry.uploads.open("a")
        second = await registry.uploads.open("a")
        second.offset = 5
        now += 100
        third = await registry.uploads.open("a")
        assert len(registry.uploads) == 2
        assert not first.path.exists()
        now += 4000
        assert await registry.uploads.expire() == 2
        assert not third.path.exists()
        assert list((tmp_path / "uploads").iterdir()) == []
        async for _ in registry.run(None):  # type: ignore[arg-type]  # the application is not looked at
            break

    asyncio.run(scenario())


def test_a_listing_of_two_thousand_million_is_a_page(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with wired(tmp_path, limits=Limits(page=3)) as wire:
            for number in range(5):
                await wire.push_image(f"r{number}", "v1")
                await wire.push_image("r0", f"t{number}")
            for path, key in (("/v2/_catalog", "repositories"), ("/v2/r0/tags/list", "tags")):
                for query in ("?n=2147483648", "?n=99999999999999999999999", ""):
                    reply = await wire("GET", path + query)
                    assert len(reply.document[key]) == 3
                    assert "Link" in reply.headers

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../../etc/passwd",
        "/v2/%2e%2e/%2e%2e/tags/list",
        "/v2/a/../../b/tags/list",
        "/v2/a%2f..%2fb/tags/list",
        "/v2/a/blobs/sha256:%2e%2e%2f%2e%2e%2fregistry.db",
        "/v2/a/manifests/..%2f..%2fregistry.db",
        "/v2/a/manifests/%00",
        "/v2/a/blobs/uploads/..%2f..%2fregistry.db",
        "/v2/a/blobs/uploads/../../../registry.db",
        "/v2/" + "a/" * 3000 + "tags/list",
    ],
)
def test_paths_lead_nowhere_but_to_what_they_name(tmp_path: Path, path: str) -> None:
    async def raw(address: str, method: str) -> bytes:
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        answer = await reader.read(100_000)
        writer.close()
        await writer.wait_closed()
        return answer

    async def scenario() -> None:
        async with wired(tmp_path) as wire:
            before = sorted(p for p in tmp_path.rglob("*"))
            for method in ("GET", "DELETE", "PUT", "PATCH"):
                answer = await raw(wire.address, method)
                assert answer.split(b" ")[1] in (b"400", b"404", b"405"), answer[:200]
                assert b"SQLite" not in answer
            assert sorted(p for p in tmp_path.rglob("*")) == before

    asyncio.run(scenario())


def test_bodies_are_not_decompressed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with wired(tmp_path) as wire:
            bomb = gzip.compress(b"\0" * 64 * MIB)
            place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
            for method, path in (("PATCH", place), ("PUT", "/v2/a/manifests/v1")):
                reply = await wire(method, path, bomb, Content_Encoding="gzip")
                assert (reply.status, reply.code) == (415, "UNSUPPORTED")
            assert stored(tmp_path) < 1000

    asyncio.run(scenario())


def test_memory_stays_flat_while_large_blobs_go_through(tmp_path: Path) -> None:
    size = 256 * MIB
    pattern = bytes(range(256)) * 4096

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // len(pattern)):
            yield pattern

    async def scenario() -> None:
        async with wired(tmp_path) as wire:
            digest = digest_of(pattern * (size // len(pattern)))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
            await wire("PATCH", place, pieces())
            assert (await wire("PUT", f"{place}?digest={digest}", b"")).status == 201
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 64 * 1024, f"{grown} KiB"

    asyncio.run(scenario())


def test_a_connection_that_breaks_leaves_an_upload_that_goes_on(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000

    async def kept(wire: Wire, place: str) -> int:
        """How many bytes the server has; an upload without any says 0-0 as well (spec.md)."""
        reply = await wire("GET", place)
        return int(reply.headers["Range"].partition("-")[2]) + 1

    async def scenario() -> None:
        async with wired(tmp_path) as wire:
            place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
            host, _, port = wire.address.partition(":")
            _reader, writer = await asyncio.open_connection(host, int(port))
            head = f"PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
            writer.write(head.encode() + content[:1_500_000])
            async with asyncio.timeout(10):
                while (await kept(wire, place)) == 1:
                    await asyncio.sleep(0.01)
                writer.close()
                await writer.wait_closed()
                while True:  # until the broken request has let go of the upload
                    # What was still on its way when the connection broke may be lost.
                    start = await kept(wire, place)
                    reply = await wire(
                        "PATCH",
                        place,
                        content[start:],
                        Content_Range=f"{start}-{len(content) - 1}",
                    )
                    if reply.status == 202:
                        break
                    await asyncio.sleep(0.01)
            reply = await wire("PUT", f"{place}?digest={digest_of(content)}", b"")
            assert reply.status == 201

    asyncio.run(scenario())


def test_two_requests_do_not_write_to_one_upload(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with wired(tmp_path) as wire:
            place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
            go = asyncio.Event()

            async def slowly() -> AsyncIterator[bytes]:
                yield b"x" * MIB
                await go.wait()
                yield b"y"

            first = asyncio.create_task(wire("PATCH", place, slowly()))
            async with asyncio.timeout(10):
                while (await wire("GET", place)).headers["Range"] == "0-0":
                    await asyncio.sleep(0.01)
            reply = await wire("PATCH", place, b"z")
            assert (reply.status, reply.code) == (416, "BLOB_UPLOAD_INVALID")
            assert (await wire("DELETE", place)).status == 416
            go.set()
            assert (await first).status == 202

    asyncio.run(scenario())


def test_requests_that_are_none_are_answered_and_fill_no_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    nonsense = (
        b"\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"GET /v2/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PATCH /v2/a/blobs/uploads/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PATCH /v2/a/blobs/uploads/x HTTP/1.1\r\nHost: x\r\nContent-Range: 5-0\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nZZ\r\n",
    )

    async def scenario() -> None:
        async with wired(tmp_path) as wire:
            host, _, port = wire.address.rpartition(":")
            for sent in nonsense:
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(sent)
                async with asyncio.timeout(30):
                    answer = await reader.read()
                assert answer.split()[1][:1] == b"4", (sent[:40], answer[:40])
                writer.close()
            assert (await wire("GET", "/v2/")).status == 200

    asyncio.run(scenario())
    assert "Traceback" not in capfd.readouterr().err
    assert not caplog.records


@pytest.mark.parametrize(
    "given",
    ["bytes=-", "bytes=", "bytes=5-2", "bytes=-0", "bytes=0-0,5-6", "items=0-1", "bytes=+1-2",
     "bytes=1-2-3", "bytes=1000-", "bytes=0x1-2", "bytes=1e3-", "bytes=-" + "9" * 400,
     "bytes=0-" + "9" * 5000, "bytes=" + ",".join(["0-"] * 500)],
)  # fmt: skip
def test_a_range_that_is_none_breaks_nothing(tmp_path: Path, given: str) -> None:
    async def scenario() -> None:
        async with wired(tmp_path) as wire:
            content = b"x" * 1000
            blob = await wire.push_blob("a", content)
            reply = await wire("GET", f"/v2/a/blobs/{blob['digest']}", Range=given)
            if reply.status == 206:
                assert 0 < len(reply.body) <= 1000
            else:
                assert reply.status in (400, 416) or reply.body == content
            place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
            refused = await wire("PATCH", place, b"hello", Content_Range=given)
            assert 400 <= refused.status < 500
            assert (await wire("GET", place)).status == 204

    asyncio.run(scenario())
