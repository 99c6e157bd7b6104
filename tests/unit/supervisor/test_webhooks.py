"""Deliveries of git servers: what is accepted, what is refused, and what never ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import io
import json
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from orchestrator.gitops.source import GitSource, Webhook
from orchestrator.gitops.webhook import BODY_LIMIT
from orchestrator.supervisor.doorkeeper import EACH, Doorkeeper
from orchestrator.supervisor.errors import BadRequest
from orchestrator.supervisor.webhooks import (
    BURST,
    RATE,
    Allowance,
    CannotListen,
    Webhooks,
    parse_address,
)

SECRET = b"known to two"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(
    tmp_path: Path, body: Callable[[aiohttp.ClientSession, list[str], Webhooks], Awaitable[None]]
) -> None:
    """Run `body` with a client of a listener that knows the source `shop`, and what it pokes."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    source = GitSource(
        name="shop", url="https://example.org/shop.git", webhook=Webhook(secretFile=str(secret))
    )

    async def main() -> None:
        poked: list[str] = []
        webhooks = Webhooks(lambda name: source if name == "shop" else None, poked.append)
        await webhooks.listen(f"127.0.0.1:{free_port()}")
        try:
            async with aiohttp.ClientSession(f"http://{webhooks.address}") as client:
                await asyncio.wait_for(body(client, poked, webhooks), 30)
        finally:
            await webhooks.close()

    asyncio.run(main())


def github(number: int, secret: bytes = SECRET, ref: str = "refs/heads/main") -> dict[str, object]:
    data = json.dumps({"ref": ref, "after": f"{number:040d}"}).encode()
    signature = hmac.new(secret, data, hashlib.sha256).hexdigest()
    return {
        "data": data,
        "headers": {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}"},
    }


PATH = "/v1/gitops/shop/webhook"


async def status(client: aiohttp.ClientSession, path: str, **options: object) -> int:
    async with client.post(path, **options) as response:  # type: ignore[arg-type]
        return response.status


def test_a_signed_delivery_has_the_repository_asked(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, poked: list[str], webhooks: Webhooks) -> None:
        assert await status(client, PATH, **github(1)) == 202
        assert poked == ["shop"]
        assert await status(client, PATH, **github(1)) == 200
        assert await status(client, PATH, **github(2, ref="refs/tags/v1")) == 200
        assert poked == ["shop"]

    serve(tmp_path, body)


def test_what_proves_nothing_brings_about_nothing(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, poked: list[str], webhooks: Webhooks) -> None:
        assert await status(client, PATH, **github(1, secret=b"guessed")) == 403
        assert await status(client, PATH, data=b"{}") == 400
        unsigned = {"data": b"{}", "headers": {"X-GitHub-Event": "push"}}
        assert await status(client, PATH, **unsigned) == 401
        assert await status(client, "/v1/gitops/other/webhook", **github(1)) == 404
        assert await status(client, "/v1/projects/shop/down") == 404
        large = {"data": io.BytesIO(bytes(BODY_LIMIT + 1)), "headers": {"X-GitHub-Event": "push"}}
        assert await status(client, PATH, **large) == 413
        assert poked == []

    serve(tmp_path, body)


def test_one_who_sends_too_many_is_told_to_wait(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, poked: list[str], webhooks: Webhooks) -> None:
        statuses = [await status(client, PATH, data=b"{}") for _ in range(BURST * 2)]
        assert 429 in statuses

    serve(tmp_path, body)


def test_an_allowance_fills_with_time_and_is_each_ones_own() -> None:
    allowance = Allowance()
    assert all(allowance.take("a", 0.0) for _ in range(BURST))
    assert not allowance.take("a", 0.0)
    assert allowance.take("b", 0.0)
    assert allowance.take("a", 1.5 / RATE)
    assert not allowance.take("a", 1.5 / RATE)


def test_an_address_that_is_taken_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, poked: list[str], webhooks: Webhooks) -> None:
        before = webhooks.address
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(CannotListen, match="address already in use"):
                await webhooks.listen(f"127.0.0.1:{other.getsockname()[1]}")
        assert webhooks.address == before
        assert await status(client, PATH, **github(1)) == 202
        await webhooks.listen("")
        with pytest.raises(aiohttp.ClientConnectionError):
            await status(client, PATH, **github(2))

    serve(tmp_path, body)


def test_every_address_of_a_port_takes_the_place_of_one_and_back(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, poked: list[str], webhooks: Webhooks) -> None:
        one = webhooks.address
        port = one.rpartition(":")[2]
        for number, address in enumerate((f"0.0.0.0:{port}", f"localhost:{port}", one)):
            await webhooks.listen(address)
            assert webhooks.address == address
            assert await status(client, PATH, **github(number)) == 202
        assert len(poked) == 3

    serve(tmp_path, body)


def test_where_every_address_cannot_be_had_the_one_stays(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, poked: list[str], webhooks: Webhooks) -> None:
        before = webhooks.address
        port = int(before.rpartition(":")[2])
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))
            other.listen()
            with pytest.raises(CannotListen, match="address already in use"):
                await webhooks.listen(f"0.0.0.0:{port}")
        assert webhooks.address == before
        assert await status(client, PATH, **github(1)) == 202

    serve(tmp_path, body)


@pytest.mark.parametrize("address", ["9080", "host", "host:", "host:0", "host:65536", "host:x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(BadRequest, match="HOST:PORT"):
        parse_address(address)


def test_addresses_of_both_families_are_read() -> None:
    assert parse_address("127.0.0.1:9080") == ("127.0.0.1", 9080)
    assert parse_address("[::1]:9080") == ("::1", 9080)
    assert parse_address(":9080") == ("0.0.0.0", 9080)


def test_a_host_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, poked: list[str], webhooks: Webhooks) -> None:
        for host in ("no\0host", "x" * 80, ".."):
            with pytest.raises(CannotListen, match=f"^listen for deliveries at {re.escape(host)}"):
                await webhooks.listen(f"{host}:9080")
        assert await status(client, PATH, **github(1)) == 202

    serve(tmp_path, body)


def test_two_who_set_the_address_at_once_leave_one_listener(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, poked: list[str], webhooks: Webhooks) -> None:
        ports = [free_port() for _ in range(3)]
        await asyncio.gather(*(webhooks.listen(f"127.0.0.1:{port}") for port in ports))
        await webhooks.close()
        for port in ports:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)

    serve(tmp_path, body)


def test_no_address_can_keep_more_than_its_connections_open(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, poked: list[str], webhooks: Webhooks) -> None:
        host, port = parse_address(webhooks.address)
        idle = [await asyncio.open_connection(host, port) for _ in range(EACH)]
        try:
            for _ in range(3):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b"POST ")
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
        finally:
            for _, writer in idle:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
        for _ in range(200):  # until the other end has seen that they are gone
            with contextlib.suppress(aiohttp.ClientConnectionError):
                if await status(client, PATH, **github(1)) == 202:
                    return
            await asyncio.sleep(0.02)
        raise AssertionError("nobody is let in again")

    serve(tmp_path, body)


def test_a_connection_that_asks_nothing_is_ended() -> None:
    async def main() -> None:
        made: list[asyncio.StreamReaderProtocol] = []

        def factory() -> asyncio.BaseProtocol:
            made.append(asyncio.StreamReaderProtocol(asyncio.StreamReader()))
            return made[-1]

        port = free_port()
        keeper = Doorkeeper(factory, connections=2, each=2, timeout=0.2)
        await keeper.listen("127.0.0.1", port)
        try:
            for _ in range(2):  # those that were ended leave room for others
                both = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
                for reader, writer in both:
                    writer.write(b"POST /v1")
                    with contextlib.suppress(ConnectionResetError):
                        assert await asyncio.wait_for(reader.read(), 20) == b""
                    writer.close()
            assert len(made) == 4
        finally:
            keeper.close()

    asyncio.run(main())


def test_one_who_says_nothing_does_not_keep_the_listener_from_its_end(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, poked: list[str], webhooks: Webhooks) -> None:
        host, port = parse_address(webhooks.address)
        reader, writer = await asyncio.open_connection(host, port)
        assert await status(client, PATH, **github(1)) == 202  # both have arrived by now
        await webhooks.close()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()

    serve(tmp_path, body)
