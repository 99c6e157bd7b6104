"""Logging in, passwords, tokens and certificates, against real servers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from runtime.images.store import ImageStore
from runtime.registry.auth import basic
from runtime.registry.client import RegistryClient
from runtime.registry.copy import copy
from runtime.registry.endpoints import Credentials, Endpoint, RegistryConfig, endpoint_of
from runtime.registry.errors import AccessDenied, RegistryError, Unreachable
from runtime.registry.login import login, logout
from runtime.registry.pull import pull, resolve_digest
from runtime.registry.push import push
from runtime.registry.repository import Repository
from runtime.registry.server.access import password_entry
from runtime.registry.server.app import serving
from runtime.registry.server.config import ServerConfig, TokenAccess
from tests.integration.registry.certificates import made
from tests.integration.registry.hostile import Hostile
from tests.integration.registry.peers import docker_registry, make_image, quick, skopeo

Guarded = Callable[[Path, Path], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def our_guarded(directory: Path, htpasswd: Path) -> AsyncIterator[str]:
    config = ServerConfig(storage=directory, listen="127.0.0.1:0", htpasswd=htpasswd)
    async with serving(config) as address:
        yield address


@asynccontextmanager
async def their_guarded(directory: Path, htpasswd: Path) -> AsyncIterator[str]:
    async with docker_registry(directory, htpasswd=htpasswd) as address:
        yield address


SERVERS = [
    pytest.param(our_guarded, id="ours"),
    pytest.param(their_guarded, id="docker-registry"),
]


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(password_entry("alice", "secret") + "\n")
    return path


@pytest.mark.parametrize("served", SERVERS)
def test_one_logs_in_works_and_logs_out(tmp_path: Path, htpasswd: Path, served: Guarded) -> None:
    async def scenario() -> None:
        config = quick(docker_config=tmp_path / "docker")
        store = ImageStore(tmp_path / "store")
        async with served(tmp_path / "registry", htpasswd) as address:
            make_image(store, f"{address}/a:1", sizes=(1000,))
            with pytest.raises(AccessDenied) as denied:
                await push(f"{address}/a:1", store=store, config=config)
            assert denied.value.hint == f"log in: bay login {address}"
            with pytest.raises(AccessDenied) as denied:
                await login(address, "alice", "wrong", config)
            assert denied.value.hint == "check the user name and the password"
            assert not (tmp_path / "docker" / "config.json").exists()
            done = await login(address, "alice", "secret", config)
            assert (done.registry, done.encrypted) == (address, False)
            pushed = await push(f"{address}/a:1", store=store, config=config)
            assert await resolve_digest(f"{address}/a:1", config) == pushed.digest
            await skopeo(
                "inspect",
                "--tls-verify=false",
                f"--authfile={tmp_path / 'docker' / 'config.json'}",
                f"docker://{address}/a:1",
            )
            assert await logout(address, config) is True
            assert await logout(address, config) is False
            with pytest.raises(AccessDenied):
                await pull(f"{address}/a:1", store=store, config=config)

    asyncio.run(scenario())


def test_entries_made_by_htpasswd_open_our_server(tmp_path: Path) -> None:
    program = shutil.which("htpasswd")
    if program is None:
        pytest.skip("htpasswd is not installed")

    async def scenario() -> None:
        path = tmp_path / "htpasswd"
        process = await asyncio.create_subprocess_exec(
            program, "-cbB", str(path), "bob", "word", stderr=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0
        async with our_guarded(tmp_path / "registry", path) as address:
            await login(address, "bob", "word", quick(docker_config=tmp_path / "docker"))
            # Nothing answers without a password, the metrics included.
            async with aiohttp.ClientSession() as session:
                for path_ in ("/v2/", "/v2/_catalog", "/v2/a/tags/list", "/metrics"):
                    async with session.get(f"http://{address}{path_}") as response:
                        assert response.status == 401
                        assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
                given = {"Authorization": basic("bob", "word")}
                async with session.get(f"http://{address}/metrics", headers=given) as response:
                    assert response.status == 200

    asyncio.run(scenario())


SECRET = b"k" * 32


class TokenService:
    """Gives what is asked for: alice may push below team/, everybody may pull team/public."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        scopes = request.query.getall("scope", [])
        self.asked.append(scopes)
        known = request.headers.get("Authorization") == basic("alice", "secret")
        if "Authorization" in request.headers and not known:
            return web.Response(status=401)
        granted = []
        for scope in scopes:
            kind, name, actions = scope.split(":", 2)
            allowed = {"pull"} if name == "team/public" else set()
            if known and name.startswith("team/"):
                allowed = {"pull", "push", "delete"}
            actions_ = sorted(allowed & set(actions.split(",")))
            granted.append({"type": kind, "name": name, "actions": actions_})
        claims = {"iss": "i", "aud": "s", "exp": time.time() + 300, "access": granted}
        parts = [
            base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=")
            for each in ({"alg": "HS256"}, claims)
        ]
        signature = hmac.new(SECRET, b".".join(parts), hashlib.sha256).digest()
        parts.append(base64.urlsafe_b64encode(signature).rstrip(b"="))
        return web.json_response({"token": b".".join(parts).decode(), "expires_in": 300})


def test_tokens_say_who_may_do_what_where(tmp_path: Path) -> None:
    service = TokenService()
    app = web.Application()
    app.router.add_get("/token", service.handle)

    async def scenario() -> None:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        realm = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
        token = TokenAccess(realm=realm, service="s", issuer="i", secret=SECRET)
        served = ServerConfig(storage=tmp_path / "r", listen="127.0.0.1:0", token=token)
        store = ImageStore(tmp_path / "store")
        try:
            async with serving(served) as address:
                alice = quick(
                    credentials={address: Credentials(username="alice", password="secret")}
                )
                image = make_image(store, f"{address}/team/public:1", sizes=(1000,))
                await push(f"{address}/team/public:1", store=store, config=alice)
                store.tag(f"{address}/team/own:1", image.id)
                await push(f"{address}/team/own:1", store=store, config=alice)
                assert ["repository:team/own:pull,push", "repository:team/public:pull"] in (
                    service.asked
                ), "a mount asks for both repositories"

                anonymous = quick()
                assert await resolve_digest(f"{address}/team/public:1", anonymous) == image.digest
                for refused in (
                    pull(f"{address}/team/own:1", store=store, config=anonymous),
                    push(f"{address}/team/public:1", store=store, config=anonymous),
                    push(f"{address}/other/x:1", source=image.id, store=store, config=alice),
                    copy(f"{address}/team/own:1", f"{address}/other/x:1", alice),
                ):
                    with pytest.raises(AccessDenied):
                        await refused
                wrong = quick(credentials={address: Credentials(username="alice", password="no")})
                with pytest.raises(AccessDenied):
                    await pull(f"{address}/team/public:1", store=store, config=wrong)
        finally:
            await runner.cleanup()

    asyncio.run(scenario())


# TLS. Addresses of this machine are not verified on their own account, so that these tests
# speak to them by an endpoint that is.


def test_a_registry_is_trusted_by_its_own_authority_and_not_without(tmp_path: Path) -> None:
    async def scenario() -> None:
        files = await made(tmp_path / "tls")
        served = ServerConfig(
            storage=tmp_path / "r",
            listen="127.0.0.1:0",
            tls_certificate=files.certificate,
            tls_key=files.key,
        )
        async with serving(served) as address:
            endpoint = Endpoint(domain=address, host=address)

            async def look(config: RegistryConfig) -> None:
                async with RegistryClient(config) as client:
                    assert await Repository(client, endpoint, "a").find_manifest("1") is None

            with pytest.raises(Unreachable, match="not trusted") as refused:
                await look(quick())
            assert refused.value.hint is not None
            assert address in refused.value.hint
            directory = tmp_path / "certs.d" / address
            directory.mkdir(parents=True)
            shutil.copy(files.authority, directory / "ca.crt")
            await look(quick(certificates=(tmp_path / "certs.d",)))

            store = ImageStore(tmp_path / "store")
            make_image(store, f"{address}/a:1", sizes=(1000, 6 * 1024 * 1024))
            pushed = await push(f"{address}/a:1", store=store, config=quick())
            pulled = await pull(
                f"{address}/a:1", store=ImageStore(tmp_path / "target"), config=quick()
            )
            assert pulled.digest == pushed.digest

    asyncio.run(scenario())


def test_debians_registry_over_tls_is_found_on_this_machine(tmp_path: Path) -> None:
    async def scenario() -> None:
        files = await made(tmp_path / "tls")
        tls = (files.certificate, files.key)
        store = ImageStore(tmp_path / "store")
        async with docker_registry(tmp_path / "registry", tls=tls) as address:
            make_image(store, f"{address}/a:1", sizes=(1000,))
            pushed = await push(f"{address}/a:1", store=store, config=quick())
            assert await resolve_digest(f"{address}/a:1", quick()) == pushed.digest

    asyncio.run(scenario())


def test_tls_is_never_left_for_a_redirect_or_a_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        files = await made(tmp_path / "tls")
        plain = Hostile()

        async def answer(request: web.Request) -> web.Response | None:
            if "/blobs/" in request.path:
                location = f"http://{plain.address}{request.path}"
                return web.Response(status=307, headers={"Location": location})
            if "/tags/" in request.path:
                challenge = f'Bearer realm="http://{plain.address}/token",service="s"'
                return web.Response(status=401, headers={"WWW-Authenticate": challenge})
            return None

        secure = Hostile(answer=answer)
        async with plain.serving(), secure.serving(tls=(files.certificate, files.key)) as address:
            directory = tmp_path / "certs.d" / address
            directory.mkdir(parents=True)
            shutil.copy(files.authority, directory / "ca.crt")
            config = quick(
                certificates=(tmp_path / "certs.d",),
                credentials={address: Credentials(username="alice", password="secret")},
            )
            endpoint = Endpoint(domain=address, host=address)
            async with RegistryClient(config) as client:
                repository = Repository(client, endpoint, "a")
                with pytest.raises(RegistryError, match="without TLS"):
                    await repository.has_blob("sha256:" + "0" * 64)
                with pytest.raises(RegistryError, match="token service without TLS"):
                    await repository.tags()
        assert plain.requests == []

    asyncio.run(scenario())


def test_a_registry_without_tls_is_not_spoken_to_unless_called_insecure(tmp_path: Path) -> None:
    async def scenario() -> None:
        registry = Hostile()
        async with registry.serving() as address:
            endpoint = Endpoint(domain=address, host=address)
            async with RegistryClient(quick()) as client:
                with pytest.raises(Unreachable, match="does not speak TLS"):
                    await Repository(client, endpoint, "a").tags()
        assert registry.requests == []

    asyncio.run(scenario())


def test_an_insecure_registry_does_not_make_others_insecure(tmp_path: Path) -> None:
    async def scenario() -> None:
        files = await made(tmp_path / "tls")
        other = Hostile()

        async def answer(request: web.Request) -> web.Response | None:
            if "/blobs/" in request.path:
                # The name is this machine's, but not one that is insecure by itself.
                port = other.address.rpartition(":")[2]
                location = f"https://other.test:{port}{request.path}"
                return web.Response(status=307, headers={"Location": location})
            return None

        registry = Hostile(answer=answer)
        async with other.serving(tls=(files.certificate, files.key)), registry.serving() as address:
            config = quick(attempts=1)
            async with RegistryClient(config) as client:
                endpoint = endpoint_of(address, config)
                assert not endpoint.verify
                there = URL(f"https://other.test:{other.address.rpartition(':')[2]}/")
                assert client._tls_for(there, endpoint).verify_mode is ssl.CERT_REQUIRED
                with pytest.raises(Unreachable):
                    await Repository(client, endpoint, "a").has_blob("sha256:" + "0" * 64)
        assert other.requests == []

    asyncio.run(scenario())
