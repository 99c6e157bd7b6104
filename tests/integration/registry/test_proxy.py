"""A server that serves another registry's content and keeps what it has fetched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from runtime.errors import ImageNotFound
from runtime.images.store import ImageStore
from runtime.oci.descriptor import MANIFEST
from runtime.registry.endpoints import Credentials
from runtime.registry.pull import pull, resolve_digest
from runtime.registry.push import push
from runtime.registry.server.app import REGISTRY, create_server, serving
from runtime.registry.server.config import Proxy, ServerConfig
from tests.integration.registry.hostile import Content, Hostile, broken_off, digest_of
from tests.integration.registry.peers import docker_registry, make_image, quick, skopeo
from tests.integration.registry.wire import Wire, wired


def proxied(remote: str, **changes: object) -> Proxy:
    given: dict[str, object] = {"remote": f"http://{remote}", "registry": quick(attempts=2)}
    return Proxy(**{**given, **changes})  # type: ignore[arg-type]  # by name, as given


@asynccontextmanager
async def cache(directory: Path, remote: str, **changes: object) -> AsyncIterator[Wire]:
    async with wired(directory, proxy=proxied(remote, **changes)) as wire:
        yield wire


def test_content_is_fetched_once_and_served_to_all(tmp_path: Path) -> None:
    content = Content(size=3_000_000)
    upstream = Hostile(content)

    async def scenario() -> None:
        async with upstream.serving() as remote, cache(tmp_path, remote) as wire:
            for number in range(3):
                store = ImageStore(tmp_path / f"store-{number}")
                image = await pull(f"{wire.address}/app:1", store=store, config=quick())
                assert store.check() == ()
                assert image.digest == digest_of(content.manifest)

    asyncio.run(scenario())
    assert len(upstream.asked("/blobs/")) == 2
    manifests = upstream.asked("/manifests/")
    assert [request.method for request in manifests] == ["GET", "HEAD", "HEAD"]


def test_many_who_ask_at_once_cause_one_download(tmp_path: Path) -> None:
    content = Content(size=2_000_000)
    upstream = Hostile(content)
    path = f"/v2/app/blobs/{digest_of(content.layer)}"

    async def scenario() -> None:
        async with upstream.serving() as remote, cache(tmp_path, remote) as wire:
            await wire("GET", "/v2/app/manifests/1")
            replies = await asyncio.gather(*(wire("GET", path) for _ in range(20)))
            assert all(reply.body == content.layer for reply in replies)

    asyncio.run(scenario())
    assert len(upstream.asked("/blobs/")) == 1


def test_a_blob_is_sent_on_while_it_arrives(tmp_path: Path) -> None:
    content = Content(size=8_000_000)
    half = len(content.layer) // 2
    go = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(digest_of(content.layer)):
            return None
        response = web.StreamResponse()
        response.content_length = len(content.layer)
        await response.prepare(request)
        await response.write(content.layer[:half])
        await go.wait()
        await response.write(content.layer[half:])
        await response.write_eof()
        return response

    async def scenario() -> None:
        async with Hostile(content, answer).serving() as remote, cache(tmp_path, remote) as wire:
            await wire("GET", "/v2/app/manifests/1")
            host, _, port = wire.address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            request = f"GET /v2/app/blobs/{digest_of(content.layer)} HTTP/1.0\r\n\r\n"
            writer.write(request.encode())
            async with asyncio.timeout(20):
                await reader.readuntil(b"\r\n\r\n")
                first = await reader.readexactly(half - 1_100_000)
                go.set()
                rest = await reader.read(-1)
            writer.close()
            assert first + rest == content.layer

    asyncio.run(scenario())


def test_a_moved_tag_is_seen_and_a_gone_one_too(tmp_path: Path) -> None:
    content = Content()
    gone = False

    async def answer(request: web.Request) -> web.Response | None:
        return web.Response(status=404) if gone and "/manifests/" in request.path else None

    async def scenario() -> None:
        nonlocal gone
        async with Hostile(content, answer).serving() as remote, cache(tmp_path, remote) as wire:
            first = await wire("GET", "/v2/app/manifests/1")
            content.manifest = content.manifest_with(annotations={"moved": "yes"})
            second = await wire("GET", "/v2/app/manifests/1")
            assert second.body == content.manifest != first.body
            old = await wire("GET", f"/v2/app/manifests/{digest_of(first.body)}")
            assert old.body == first.body, "by digest it is still there"
            gone = True
            assert (await wire("GET", "/v2/app/manifests/1")).code == "MANIFEST_UNKNOWN"

    asyncio.run(scenario())


def test_a_tag_that_was_just_looked_up_is_not_looked_up_again(tmp_path: Path) -> None:
    upstream = Hostile()

    async def scenario() -> None:
        async with upstream.serving() as remote, cache(tmp_path, remote, fresh=60.0) as wire:
            for _ in range(3):
                assert (await wire("HEAD", "/v2/app/manifests/1")).status == 200

    asyncio.run(scenario())
    assert len(upstream.asked("/manifests/")) == 1


def test_what_is_known_is_served_while_the_remote_is_away(tmp_path: Path) -> None:
    content = Content()

    async def scenario() -> None:
        async with Hostile(content).serving() as remote, cache(tmp_path, remote) as wire:
            store = ImageStore(tmp_path / "first")
            await pull(f"{wire.address}/app:1", store=store, config=quick())
        async with cache(tmp_path, remote) as wire:
            store = ImageStore(tmp_path / "second")
            await pull(f"{wire.address}/app:1", store=store, config=quick())
            reply = await wire("GET", "/v2/app/manifests/1")
            assert reply.headers["Warning"].startswith("299 - ")
            assert (await wire("GET", "/v2/app/manifests/2")).status == 502
            assert (await wire("GET", f"/v2/app/blobs/sha256:{'0' * 64}")).status == 404

    asyncio.run(scenario())


def test_a_blob_that_cannot_be_fetched_is_refused_before_it_is_promised(tmp_path: Path) -> None:
    content = Content()
    path = f"/v2/app/blobs/{digest_of(content.layer)}"

    async def scenario() -> None:
        async with Hostile(content).serving() as remote, cache(tmp_path, remote) as wire:
            assert (await wire("GET", "/v2/app/manifests/1")).status == 200
        async with cache(tmp_path, remote) as wire:
            reply = await wire("GET", path)
            assert reply.status == 502
            assert b"the remote registry fails" in reply.body

    asyncio.run(scenario())


def test_a_broken_remote_is_taken_up_and_a_lying_one_is_not_kept(tmp_path: Path) -> None:
    content = Content(size=3_000_000)
    lie = False
    calls = 0

    async def answer(request: web.Request) -> web.StreamResponse | None:
        nonlocal calls
        if not request.path.endswith(digest_of(content.layer)):
            return None
        if lie:
            return web.Response(body=b"x" * len(content.layer))
        calls += 1
        if calls == 1:
            return await broken_off(request, content.layer, 0, 1_500_000)
        return None

    async def scenario() -> None:
        nonlocal lie
        async with Hostile(content, answer).serving() as remote:
            async with cache(tmp_path / "good", remote) as wire:
                store = ImageStore(tmp_path / "store")
                await pull(f"{wire.address}/app:1", store=store, config=quick())
                assert store.check() == ()
            assert calls == 2
            lie = True
            async with cache(tmp_path / "bad", remote) as wire:
                with pytest.raises(Exception, match=r"breaks|something else"):
                    await pull(
                        f"{wire.address}/app:1",
                        store=ImageStore(tmp_path / "other"),
                        config=quick(attempts=2),
                    )
                name = digest_of(content.layer).removeprefix("sha256:")
                assert list((tmp_path / "bad").rglob(f"{name}*")) == []

    asyncio.run(scenario())


def test_nothing_can_be_pushed_to_a_proxy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Hostile().serving() as remote, cache(tmp_path, remote) as wire:
            for method, path in (
                ("POST", "/v2/a/blobs/uploads/"),
                ("PUT", "/v2/a/manifests/1"),
                ("DELETE", "/v2/a/manifests/1"),
            ):
                assert (await wire(method, path, b"")).code == "UNSUPPORTED"

    asyncio.run(scenario())


def test_the_remotes_credentials_are_used_and_not_shown(tmp_path: Path) -> None:
    content = Content()

    async def answer(request: web.Request) -> web.Response | None:
        if "Authorization" in request.headers:
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})

    upstream = Hostile(content, answer)
    secret = Credentials(username="alice", password="hidden-word")

    async def scenario() -> None:
        async with (
            upstream.serving() as remote,
            cache(tmp_path, remote, credentials=secret) as wire,
        ):
            reply = await wire("GET", "/v2/app/manifests/1", None, Accept=MANIFEST)
            assert reply.status == 200
            assert "hidden-word" not in str(reply.headers)

    asyncio.run(scenario())


def test_debians_registry_is_served_on_to_skopeo(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with docker_registry(tmp_path / "peer") as remote:
            image = make_image(store, f"{remote}/team/app:1", sizes=(1000, 2_000_000))
            await push(f"{remote}/team/app:1", store=store, config=quick())
            async with cache(tmp_path, remote) as wire:
                await skopeo(
                    *("copy", "--src-tls-verify=false"),
                    *(f"docker://{wire.address}/team/app:1", f"oci:{tmp_path}/layout:x"),
                )
                assert await resolve_digest(f"{wire.address}/team/app:1", quick()) == image.digest
                reply = await wire("GET", "/v2/team/app/tags/list")
                assert reply.document["tags"] == ["1"]
                with pytest.raises(ImageNotFound):
                    await resolve_digest(f"{wire.address}/team/app:9", quick())

    asyncio.run(scenario())


def test_what_nobody_pulls_any_more_is_dropped(tmp_path: Path) -> None:
    content = Content()
    upstream = Hostile(content)

    async def scenario() -> None:
        async with upstream.serving() as remote:
            config = ServerConfig(
                storage=tmp_path / "registry", listen="127.0.0.1:0", proxy=proxied(remote, ttl=60.0)
            )
            async with serving(config) as address:
                store = ImageStore(tmp_path / "store")
                await pull(f"{address}/app:1", store=store, config=quick())

        registry = create_server(config)[REGISTRY]
        now = registry.storage.clock()
        assert (await registry.collect()).manifests == 0
        registry.storage.clock = lambda: now + 3 * 86400
        done = await registry.collect()
        assert (done.manifests, done.blobs) == (1, 2)
        registry.storage.close()

    asyncio.run(scenario())
