"""Deliveries of git servers: what is accepted, what is refused, and what never ends."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from orchestrator.gitops.source import GitSource, Webhook
from orchestrator.gitops.webhook import BODY_LIMIT
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


@pytest.mark.parametrize("address", ["9080", "host", "host:", "host:0", "host:65536", "host:x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(BadRequest, match="HOST:PORT"):
        parse_address(address)


def test_addresses_of_both_families_are_read() -> None:
    assert parse_address("127.0.0.1:9080") == ("127.0.0.1", 9080)
    assert parse_address("[::1]:9080") == ("::1", 9080)
    assert parse_address(":9080") == ("0.0.0.0", 9080)
