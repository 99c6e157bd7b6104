"""Registries that lie, break or spy: what the client makes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from runtime.errors import ImageNotFound, RuntimeFault
from runtime.images.store import ImageStore
from runtime.oci.descriptor import CONFIG, INDEX, LAYER, MANIFEST
from runtime.registry.endpoints import Credentials, RegistryConfig
from runtime.registry.errors import AccessDenied, RegistryError, Unreachable
from runtime.registry.progress import TransferEvent
from runtime.registry.pull import pull, resolve_digest
from tests.integration.registry.hostile import Content, Hostile, broken_off, digest_of, ranged
from tests.integration.registry.peers import quick

SECRET = Credentials(username="alice", password="secret")


def manifest_answer(content: bytes, media_type: str = MANIFEST, **headers: str) -> web.Response:
    return web.Response(body=content, headers={"Content-Type": media_type, **headers})


def pull_from(
    registry: Hostile, directory: Path, *, tag: str = "app:1", **changes: Any
) -> tuple[ImageStore, list[TransferEvent]]:
    store = ImageStore(directory / "store")
    events: list[TransferEvent] = []

    async def scenario() -> None:
        async with registry.serving() as address:
            reference = f"{address}/{tag}"
            given = changes.pop("credentials", None)
            if given is not None:
                changes["credentials"] = {address: given}
            await pull(reference, store=store, config=quick(**changes), progress=events.append)

    asyncio.run(scenario())
    return store, events


def refused(registry: Hostile, directory: Path, match: str, **changes: Any) -> RuntimeFault:
    with pytest.raises(RuntimeFault, match=match) as raised:
        pull_from(registry, directory, **changes)
    store = ImageStore(directory / "store")
    assert store.list() == []
    assert store.check() == ()
    return raised.value


def test_an_honest_registry_is_pulled_from(tmp_path: Path) -> None:
    registry = Hostile()
    store, _events = pull_from(registry, tmp_path)
    assert len(store.list()) == 1
    assert store.check() == ()
    assert {request.headers["Accept-Encoding"] for request in registry.requests} == {"identity"}


# Documents


def test_a_manifest_that_is_not_the_digest_asked_for_is_refused(tmp_path: Path) -> None:
    refused(Hostile(), tmp_path, "is not sha256", tag="app@sha256:" + "0" * 64)


def test_a_digest_header_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    content = Content()

    async def answer(request: web.Request) -> web.Response | None:
        if "/manifests/" in request.path:
            return manifest_answer(
                content.manifest, **{"Docker-Content-Digest": "sha256:" + "1" * 64}
            )
        return None

    refused(Hostile(content, answer), tmp_path, "is not sha256:1111")


@pytest.mark.parametrize(
    ("document", "media_type", "match"),
    [
        ({"manifests": [], "layers": [], "config": {}}, MANIFEST, "config is missing"),
        ({"schemaVersion": 1}, MANIFEST, "schema 1"),
        ({"mediaType": INDEX}, MANIFEST, "calls itself"),
        ({"mediaType": MANIFEST}, INDEX, "calls itself"),
        ({"mediaType": None, "manifests": [{"x": 1}]}, MANIFEST, "manifests"),
        ({}, "text/html", "calls itself"),
        (
            {"config": {"mediaType": CONFIG, "digest": "sha256:../../x", "size": 1}},
            MANIFEST,
            "digest",
        ),
        (
            {"layers": [{"mediaType": LAYER, "digest": "sha256:" + "0" * 64, "size": -1}]},
            MANIFEST,
            "size",
        ),
        (
            {"config": {"mediaType": "x/y", "digest": "sha256:" + "0" * 64, "size": 1}},
            MANIFEST,
            "artifact",
        ),
    ],
)
def test_documents_that_could_be_taken_for_something_else_are_refused(
    tmp_path: Path, document: dict[str, Any], media_type: str, match: str
) -> None:
    content = Content()
    altered = json.loads(content.manifest_with(**document))
    altered = {key: value for key, value in altered.items() if value is not None}

    async def answer(request: web.Request) -> web.Response | None:
        if "/manifests/" in request.path:
            return manifest_answer(json.dumps(altered).encode(), media_type)
        return None

    refused(Hostile(content, answer), tmp_path, match)


def test_a_manifest_without_end_is_refused_after_four_mebibytes(tmp_path: Path) -> None:
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse | None:
        nonlocal sent
        if "/manifests/" not in request.path:
            return None
        response = web.StreamResponse(headers={"Content-Type": MANIFEST})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            while sent < 1_000_000_000:
                await response.write(b" " * 65536)
                sent += 65536
        except ConnectionError:
            pass
        return response

    refused(Hostile(answer=answer), tmp_path, "more than 4194304")
    assert sent < 64 * 1024 * 1024


def test_a_child_that_is_not_what_its_index_says_is_refused(tmp_path: Path) -> None:
    content = Content()
    child = {
        **Content.descriptor(MANIFEST, content.manifest),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    for change, match in (
        ({"size": 5}, "bytes"),
        ({"mediaType": "application/vnd.docker.distribution.manifest.v2+json"}, "as its index"),
    ):
        index = json.dumps(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**child, **change}]}
        ).encode()

        async def answer(request: web.Request, index: bytes = index) -> web.Response | None:
            if request.path.endswith("/manifests/1"):
                return manifest_answer(index, INDEX)
            return None

        refused(Hostile(content, answer), tmp_path, match)


def test_an_image_for_other_platforms_says_which(tmp_path: Path) -> None:
    content = Content()
    child = {
        **Content.descriptor(MANIFEST, content.manifest),
        "platform": {"os": "linux", "architecture": "z80"},
    }
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]}).encode()

    async def answer(request: web.Request) -> web.Response | None:
        return manifest_answer(index, INDEX) if "/manifests/1" in request.path else None

    refused(Hostile(content, answer), tmp_path, "it is for linux/z80")


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response | None:
        return web.Response(status=404) if "/manifests/" in request.path else None

    error = refused(Hostile(answer=answer), tmp_path, "no such image")
    assert isinstance(error, ImageNotFound)


def test_the_words_of_a_registry_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no\x1b[2J\nway" + "x" * 9999}]})

    async def answer(request: web.Request) -> web.Response | None:
        return web.Response(status=403, text=body) if "/manifests/" in request.path else None

    error = refused(Hostile(answer=answer), tmp_path, "no")
    assert isinstance(error, AccessDenied)
    assert error.codes == ("DENIED",)
    assert str(error).isprintable()
    assert len(str(error)) < 600


# Blobs


def blob_answer(
    content: Content, reply: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse | None]]:
    async def answer(request: web.Request) -> web.StreamResponse | None:
        if request.path.endswith(digest_of(content.layer)):
            return await reply(request)
        return None

    return answer


def test_a_blob_of_another_content_is_refused_and_not_kept(tmp_path: Path) -> None:
    content = Content()

    async def reply(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * len(content.layer))

    refused(Hostile(content, blob_answer(content, reply)), tmp_path, "something else")
    assert list((tmp_path / "store" / "partial").iterdir()) == []


def test_a_blob_that_is_longer_than_its_manifest_says_is_refused_early(tmp_path: Path) -> None:
    content = Content()
    sent = 0

    async def reply(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            while sent < 1_000_000_000:
                await response.write(b"x" * 65536)
                sent += 65536
        except ConnectionError:
            pass
        return response

    refused(Hostile(content, blob_answer(content, reply)), tmp_path, "longer than")
    assert sent < 64 * 1024 * 1024


def test_a_blob_that_breaks_off_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    content = Content(size=300_000)
    ranges: list[str] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        ranges.append(request.headers.get("Range", ""))
        if len(ranges) > 3:
            return ranged(request, content.layer)
        start = int(ranges[-1].removeprefix("bytes=").rstrip("-") or 0)
        return await broken_off(request, content.layer, start, 50_000)

    store, events = pull_from(Hostile(content, blob_answer(content, reply)), tmp_path)
    assert store.check() == ()
    assert ranges == ["", "bytes=50000-", "bytes=100000-", "bytes=150000-"]
    assert [event.current for event in events if event.stage == "retrying"] == [
        50_000,
        100_000,
        150_000,
    ]


def test_a_registry_without_ranges_sends_it_again_from_the_start(tmp_path: Path) -> None:
    content = Content(size=300_000)
    calls = 0

    async def reply(request: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        if calls == 1:
            return await broken_off(request, content.layer, 0, 50_000)
        return web.Response(body=content.layer)

    store, _events = pull_from(Hostile(content, blob_answer(content, reply)), tmp_path)
    assert store.check() == ()
    assert calls == 2


def test_a_range_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    content = Content()
    calls = 0

    async def reply(request: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        if calls == 1:
            return await broken_off(request, content.layer, 0, 50_000)
        return web.Response(
            status=206, body=content.layer[10:], headers={"Content-Range": "bytes 10-20/30"}
        )

    refused(Hostile(content, blob_answer(content, reply)), tmp_path, "another range")


def test_a_connection_that_never_lasts_ends_in_an_error(tmp_path: Path) -> None:
    content = Content()

    async def reply(request: web.Request) -> web.StreamResponse:
        return await broken_off(request, content.layer, 0, 0)

    error = refused(Hostile(content, blob_answer(content, reply)), tmp_path, "breaks")
    assert isinstance(error, Unreachable)


def test_a_broken_rest_of_an_earlier_pull_is_not_trusted(tmp_path: Path) -> None:
    content = Content()
    store = ImageStore(tmp_path / "store")
    partial = store.root / "partial" / digest_of(content.layer).replace(":", "-")
    partial.parent.mkdir()
    partial.write_bytes(b"somebody else's bytes")
    store, _events = pull_from(Hostile(content), tmp_path)
    assert store.check() == ()
    assert len(store.list()) == 1


def test_addresses_in_a_manifest_are_never_asked(tmp_path: Path) -> None:
    elsewhere = Hostile()
    content = Content()

    async def scenario() -> None:
        async with elsewhere.serving() as other:
            layer = {
                **Content.descriptor(LAYER, b"absent"),
                "urls": [f"http://{other}/layer"],
            }
            content.manifest = content.manifest_with(layers=[layer])
            registry = Hostile(content)
            async with registry.serving() as address:
                store = ImageStore(tmp_path / "store")
                config = quick(credentials={address: SECRET})
                with pytest.raises(ImageNotFound):
                    await pull(f"{address}/app:1", store=store, config=config)

    asyncio.run(scenario())
    assert elsewhere.requests == []


def test_more_than_the_disk_has_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    content = Content()
    layer = {**Content.descriptor(LAYER, content.layer), "size": 1 << 60}
    content.manifest = content.manifest_with(layers=[layer])
    registry = Hostile(content)
    refused(registry, tmp_path, "are free")
    assert registry.asked(digest_of(content.layer)) == []


# Busy and broken servers


def test_a_registry_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    async def answer(request: web.Request) -> web.Response | None:
        if request.path == "/v2/":
            return None
        seen[request.path] = seen.get(request.path, 0) + 1
        if seen[request.path] == 1:
            return web.Response(status=503)
        if seen[request.path] == 2:
            return web.Response(status=429, headers={"Retry-After": "0"})
        return None

    store, _events = pull_from(Hostile(answer=answer), tmp_path)
    assert set(seen.values()) == {3}
    assert store.check() == ()


def test_a_registry_that_stays_broken_is_given_up(tmp_path: Path) -> None:
    registry = Hostile(answer=lambda _request: _always(web.Response(status=503)))
    error = refused(registry, tmp_path, "answers 503")
    assert isinstance(error, RegistryError)
    assert len(registry.asked("/manifests/")) == 5


async def _always(response: web.Response) -> web.Response:
    return response


def test_nobody_listening_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 cannot be reached"):
        asyncio.run(pull("127.0.0.1:1/app", store=ImageStore(tmp_path), config=quick(attempts=2)))


def test_a_registry_that_says_nothing_times_out(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response | None:
        if "/manifests/" in request.path:
            await asyncio.Event().wait()
        return None

    error = refused(
        Hostile(answer=answer), tmp_path, "cannot be reached", read_timeout=0.2, attempts=2
    )
    assert isinstance(error, Unreachable)


def test_a_pull_can_be_cancelled_at_once(tmp_path: Path) -> None:
    content = Content()
    reached = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        reached.set()
        await asyncio.Event().wait()
        return web.Response()

    async def scenario() -> None:
        registry = Hostile(content, blob_answer(content, reply))
        async with registry.serving() as address:
            store = ImageStore(tmp_path)
            work = asyncio.create_task(pull(f"{address}/app", store=store, config=quick()))
            await reached.wait()
            work.cancel()
            async with asyncio.timeout(5):
                with pytest.raises(asyncio.CancelledError):
                    await work
            assert list((tmp_path / "ingest").iterdir()) == []

    asyncio.run(scenario())


def test_what_a_registry_wants_its_users_to_read_is_passed_on(tmp_path: Path) -> None:
    content = Content()

    async def answer(request: web.Request) -> web.Response | None:
        if "/manifests/" in request.path:
            return manifest_answer(content.manifest, Warning='299 - "moving soon"')
        return None

    _store, events = pull_from(Hostile(content, answer), tmp_path)
    (warning,) = [event.detail for event in events if event.stage == "warning"]
    assert warning.endswith(": moving soon")


def test_a_registry_is_reached_through_the_proxy_of_the_environment(tmp_path: Path) -> None:
    proxy = Hostile()

    async def scenario() -> None:
        async with proxy.serving() as address:
            config = quick(
                environ={"HTTP_PROXY": f"http://{address}", "HTTPS_PROXY": f"http://{address}"},
                insecure=("registry.test",),
                attempts=1,
            )
            store = ImageStore(tmp_path)
            image = await pull("registry.test/app:1", store=store, config=config)
            assert image.references == ("registry.test/app:1",)

    asyncio.run(scenario())
    assert {request.headers["Host"] for request in proxy.requests if request.method == "GET"} == {
        "registry.test"
    }


# Credentials


def challenging(
    realm: str | None = None, *, accepted: str | None = None
) -> Callable[[web.Request], Awaitable[web.Response | None]]:
    """Demands authorisation everywhere; `accepted` is the header that opens."""

    async def answer(request: web.Request) -> web.Response | None:
        if request.path == "/token":
            return None
        given = request.headers.get("Authorization")
        if given is not None and accepted in (None, given):
            return None
        challenge = f'Bearer realm="{realm}",service="s"' if realm else 'Basic realm="r"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    return answer


def test_a_redirect_to_another_host_carries_no_credentials(tmp_path: Path) -> None:
    content = Content()
    storage = Hostile(content)

    async def scenario() -> None:
        async with storage.serving() as other:

            async def answer(request: web.Request) -> web.Response | None:
                denied = await challenging()(request)
                if denied is not None:
                    return denied
                if "/blobs/" in request.path:
                    return web.Response(
                        status=307, headers={"Location": f"http://{other}{request.path}"}
                    )
                return None

            registry = Hostile(content, answer)
            async with registry.serving() as address:
                store = ImageStore(tmp_path)
                config = quick(credentials={address: SECRET})
                await pull(f"{address}/app:1", store=store, config=config)
                assert "Authorization" in registry.asked("/manifests/")[-1].headers

    asyncio.run(scenario())
    assert len(storage.requests) == 2
    for request in storage.requests:
        assert "Authorization" not in request.headers


def test_another_host_that_demands_credentials_does_not_get_them(tmp_path: Path) -> None:
    content = Content()
    thief = Hostile(content, challenging())

    async def scenario() -> None:
        async with thief.serving() as other:

            async def answer(request: web.Request) -> web.Response | None:
                denied = await challenging()(request)
                if denied is not None:
                    return denied
                if "/blobs/" in request.path:
                    location = f"http://{other}{request.path}"
                    return web.Response(status=302, headers={"Location": location})
                return None

            registry = Hostile(content, answer)
            async with registry.serving() as address:
                config = quick(credentials={address: SECRET})
                with pytest.raises(AccessDenied):
                    await pull(f"{address}/app:1", store=ImageStore(tmp_path), config=config)

    asyncio.run(scenario())
    assert all("Authorization" not in request.headers for request in thief.requests)


@pytest.mark.parametrize(
    ("location", "match"),
    [("/v2/app/blobs/loop", "redirects more than"), ("ftp://x/y", "no URL")],
)
def test_redirects_that_lead_nowhere_are_refused(tmp_path: Path, location: str, match: str) -> None:
    async def answer(request: web.Request) -> web.Response | None:
        if "/blobs/" in request.path:
            return web.Response(status=307, headers={"Location": location})
        return None

    refused(Hostile(answer=answer), tmp_path, match)


def token_service(content: Content, **token: Any) -> tuple[Hostile, list[web.Request]]:
    """A registry that takes the token "good", and its own token service."""
    registry = Hostile(content)
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response | None:
        if request.path == "/token":
            asked.append(request)
            return web.json_response({"token": "good", **token})
        realm = f"http://{registry.address}/token"
        return await challenging(realm, accepted="Bearer good")(request)

    registry.answer = answer
    return registry, asked


def test_one_token_serves_a_whole_pull_and_is_asked_for_its_repository(tmp_path: Path) -> None:
    registry, asked = token_service(Content())
    pull_from(registry, tmp_path, credentials=SECRET)
    (request,) = asked
    assert request.query["scope"] == "repository:app:pull"
    assert request.query["service"] == "s"
    assert request.query["account"] == "alice"
    assert request.headers["Authorization"].startswith("Basic ")


def test_without_credentials_an_anonymous_token_is_asked_for(tmp_path: Path) -> None:
    registry, asked = token_service(Content())
    pull_from(registry, tmp_path)
    (request,) = asked
    assert "Authorization" not in request.headers
    assert "account" not in request.query


def test_an_identity_token_is_exchanged(tmp_path: Path) -> None:
    content = Content()
    forms: list[dict[str, str]] = []
    registry = Hostile(content)

    async def answer(request: web.Request) -> web.Response | None:
        if request.path == "/token":
            forms.append({key: str(value) for key, value in (await request.post()).items()})
            return web.json_response({"access_token": "good"})
        realm = f"http://{registry.address}/token"
        return await challenging(realm, accepted="Bearer good")(request)

    registry.answer = answer
    pull_from(registry, tmp_path, credentials=Credentials(identity_token="refresh"))
    assert forms[0]["grant_type"] == "refresh_token"
    assert forms[0]["refresh_token"] == "refresh"


def test_a_token_that_expires_on_the_way_is_renewed(tmp_path: Path) -> None:
    content = Content()
    registry = Hostile(content)
    issued = 0

    async def answer(request: web.Request) -> web.Response | None:
        nonlocal issued
        if request.path == "/token":
            issued += 1
            return web.json_response({"token": f"t{issued}"})
        # Each kind of request wants a younger token than the one before.
        wanted = "Bearer t2" if "/blobs/" in request.path else "Bearer t1"
        realm = f"http://{registry.address}/token"
        return await challenging(realm, accepted=wanted)(request)

    registry.answer = answer
    store, _events = pull_from(registry, tmp_path, downloads=1)
    assert store.check() == ()
    assert issued == 2


@pytest.mark.parametrize(
    ("document", "match"),
    [({"token": ""}, "no token"), ({"token": 5}, "no token"), ({"token": "a\nb"}, "no token")],
)
def test_a_token_that_is_none_is_refused(
    tmp_path: Path, document: dict[str, Any], match: str
) -> None:
    registry, _asked = token_service(Content(), **document)
    refused(registry, tmp_path, match)


def test_a_wrong_password_says_what_to_do(tmp_path: Path) -> None:
    registry = Hostile(answer=challenging(accepted="Basic other"))
    error = refused(registry, tmp_path, "answers 401", credentials=SECRET)
    assert isinstance(error, AccessDenied)
    assert error.hint is not None
    assert len(registry.asked("/manifests/")) == 1, "a refused password is not tried again"


def test_no_password_says_how_to_log_in(tmp_path: Path) -> None:
    error = refused(Hostile(answer=challenging()), tmp_path, "answers 401")
    assert error.hint == f"log in: bay login {str(error).split('/')[0].split()[-1]}"


# Mirrors


def test_a_mirror_is_asked_first_with_its_own_credentials_only(tmp_path: Path) -> None:
    content = Content()
    mirror, upstream = Hostile(content, challenging()), Hostile(content)

    async def scenario() -> None:
        async with mirror.serving() as near, upstream.serving() as far:
            config = RegistryConfig(
                docker_config=tmp_path,
                first_delay=0.01,
                mirrors={far: (f"http://{near}/cache",)},
                credentials={far: SECRET},
            )
            store = ImageStore(tmp_path / "store")
            events: list[TransferEvent] = []
            image = await pull(f"{far}/app:1", store=store, config=config, progress=events.append)
            assert image.references == (f"{far}/app:1",)
            assert next(event.stage for event in events) == "warning"
            assert await resolve_digest(f"{far}/app:1", config) == image.digest

    asyncio.run(scenario())
    assert mirror.asked("/v2/cache/app/manifests/1")
    assert all("Authorization" not in request.headers for request in mirror.requests)
    assert upstream.asked("/v2/app/blobs/")


def test_a_blob_that_a_mirror_lacks_comes_from_the_registry(tmp_path: Path) -> None:
    content = Content()

    async def lacks(request: web.Request) -> web.Response | None:
        return web.Response(status=404) if digest_of(content.layer) in request.path else None

    mirror, upstream = Hostile(content, lacks), Hostile(content)

    async def scenario() -> None:
        async with mirror.serving() as near, upstream.serving() as far:
            store = ImageStore(tmp_path / "store")
            config = quick(mirrors={far: (f"http://{near}",)})
            await pull(f"{far}/app:1", store=store, config=config)
            assert store.check() == ()

    asyncio.run(scenario())
    assert [r.path for r in upstream.asked("/blobs/")] == [
        f"/v2/app/blobs/{digest_of(content.layer)}"
    ]
