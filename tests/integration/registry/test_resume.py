"""Broken wires, killed processes, and two who want the same at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from runtime.images.store import ImageStore
from runtime.registry.copy import copy
from runtime.registry.progress import TransferEvent
from runtime.registry.pull import pull, resolve_digest
from runtime.registry.push import push
from tests.integration.registry.hostile import Content, Hostile, digest_of, ranged
from tests.integration.registry.peers import docker_registry, make_image, quick
from tests.integration.registry.severed import Severed
from tests.integration.registry.test_peers import SERVERS, Served, our_registry

MIB = 1024 * 1024

PULL = """
import asyncio, sys
from pathlib import Path
from runtime.images.store import ImageStore
from runtime.registry.endpoints import RegistryConfig
from runtime.registry.pull import pull

def tell(event):
    print(event.stage, event.current, flush=True)

config = RegistryConfig(docker_config=Path("/nonexistent"), certificates=(), first_delay=0.01)
store = ImageStore(sys.argv[1])
asyncio.run(pull(sys.argv[2], store=store, config=config, progress=tell))
"""


PUSH = (
    PULL.replace("import pull", "import push")
    .replace("pull import", "push import")
    .replace("asyncio.run(pull", "asyncio.run(push")
)


@asynccontextmanager
async def pulling(
    store: Path, reference: str, program: str = PULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        str(store),
        reference,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    try:
        yield process
    finally:
        kill(process)
        await process.communicate()


def kill(process: asyncio.subprocess.Process) -> None:
    """It may have ended before."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()


@pytest.mark.parametrize("served", SERVERS)
def test_a_push_goes_on_over_a_wire_that_breaks(tmp_path: Path, served: Served) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with served(tmp_path / "registry") as address:
            wire = Severed(address, after=3 * MIB, times=3)
            async with wire.serving() as broken:
                image = make_image(store, f"{broken}/a:1", sizes=(12 * MIB,))
                events: list[TransferEvent] = []
                await push(f"{broken}/a:1", store=store, config=quick(), progress=events.append)
            assert wire.left == 0
            assert [event for event in events if event.stage == "retrying"]
            target = ImageStore(tmp_path / "target")
            assert (await pull(f"{address}/a:1", store=target, config=quick())).id == image.id

    asyncio.run(scenario())


def test_a_push_to_our_server_sends_only_what_is_missing(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with our_registry(tmp_path / "registry") as address:
            async with Severed(address, after=5 * MIB, times=1).serving() as broken:
                make_image(store, f"{broken}/a:1", sizes=(12 * MIB,))
                events: list[TransferEvent] = []
                await push(f"{broken}/a:1", store=store, config=quick(), progress=events.append)
            again = [event.current for event in events if event.stage == "retrying"]
            assert again[-1] >= 3 * MIB

    asyncio.run(scenario())


@pytest.mark.parametrize("served", SERVERS)
def test_a_pull_goes_on_over_a_wire_that_breaks(tmp_path: Path, served: Served) -> None:
    async def scenario() -> None:
        store, target = ImageStore(tmp_path / "store"), ImageStore(tmp_path / "target")
        async with served(tmp_path / "registry") as address:
            image = make_image(store, f"{address}/a:1", sizes=(12 * MIB,))
            await push(f"{address}/a:1", store=store, config=quick())
            async with Severed(address, after=3 * MIB, times=3).serving() as broken:
                events: list[TransferEvent] = []
                pulled = await pull(
                    f"{broken}/a:1", store=target, config=quick(), progress=events.append
                )
            assert pulled.id == image.id
            offsets = [event.current for event in events if event.stage == "retrying"]
            assert len(offsets) == 3
            assert offsets == sorted(offsets)
            assert offsets[0] > MIB

    asyncio.run(scenario())


def test_a_copy_goes_on_over_wires_that_break(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with (
            our_registry(tmp_path / "one") as first,
            docker_registry(tmp_path / "two") as second,
        ):
            image = make_image(store, f"{first}/a:1", sizes=(12 * MIB,))
            await push(f"{first}/a:1", store=store, config=quick())
            async with (
                Severed(first, after=5 * MIB, times=2).serving() as source,
                Severed(second, after=7 * MIB, times=2).serving() as destination,
            ):
                await copy(f"{source}/a:1", f"{destination}/b:1", quick())
            assert await resolve_digest(f"{second}/b:1", quick()) == image.digest

    asyncio.run(scenario())


def test_a_killed_pull_is_taken_up_by_the_next(tmp_path: Path) -> None:
    content = Content(size=8 * MIB)
    half = len(content.layer) // 2
    ranges: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(digest_of(content.layer)):
            return None
        ranges.append(request.headers.get("Range", ""))
        if len(ranges) > 1:
            return ranged(request, content.layer)
        response = web.StreamResponse()
        response.content_length = len(content.layer)
        await response.prepare(request)
        await response.write(content.layer[:half])
        await asyncio.Event().wait()
        return response

    async def scenario() -> None:
        async with Hostile(content, answer).serving() as address:
            partial = tmp_path / "store" / "partial"
            name = digest_of(content.layer).replace(":", "-")
            async with (
                asyncio.timeout(30),
                pulling(tmp_path / "store", f"{address}/app:1") as process,
            ):
                assert process.stdout is not None
                while not (partial / name).exists():
                    assert await process.stdout.readline()
                while (partial / name).stat().st_size < half - MIB:
                    await asyncio.sleep(0.01)
                kill(process)

            store = ImageStore(tmp_path / "store")
            assert store.check() == ()
            assert store.list() == []
            await pull(f"{address}/app:1", store=store, config=quick())
            assert store.check() == ()
            assert len(store.list()) == 1
            assert list(partial.iterdir()) == []

    asyncio.run(scenario())
    first, second = ranges
    assert first == ""
    assert int(second.removeprefix("bytes=").rstrip("-")) >= half - MIB


def test_two_processes_that_pull_at_once_do_the_work_once(tmp_path: Path) -> None:
    content = Content(size=4 * MIB)
    registry = Hostile(content)
    both = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if "/manifests/" in request.path and len(registry.asked("/manifests/")) == 2:
            both.set()
        if "/blobs/" in request.path:
            await both.wait()
        return None

    registry.answer = answer

    async def scenario() -> None:
        async with registry.serving() as address, asyncio.timeout(60):
            name = f"{address}/app:1"
            async with (
                pulling(tmp_path / "store", name) as first,
                pulling(tmp_path / "store", name) as second,
            ):
                await asyncio.gather(first.communicate(), second.communicate())
                assert (first.returncode, second.returncode) == (0, 0)

    asyncio.run(scenario())
    assert len(registry.asked("/blobs/")) == 2, "the config and the layer, once each"
    assert ImageStore(tmp_path / "store").check() == ()


def test_who_waits_takes_over_when_the_other_is_killed(tmp_path: Path) -> None:
    content = Content(size=4 * MIB)
    asked = 0

    async def answer(request: web.Request) -> web.StreamResponse | None:
        nonlocal asked
        if not request.path.endswith(digest_of(content.layer)):
            return None
        asked += 1
        if asked == 1:
            await asyncio.Event().wait()
        return None

    async def scenario() -> None:
        async with Hostile(content, answer).serving() as address, asyncio.timeout(60):
            name = f"{address}/app:1"
            async with pulling(tmp_path / "store", name) as first:
                while asked == 0:
                    await asyncio.sleep(0.01)
                async with pulling(tmp_path / "store", name) as second:
                    assert second.stdout is not None
                    while b"waiting" not in await second.stdout.readline():
                        assert second.returncode is None
                    first.kill()
                    await second.communicate()
                    assert second.returncode == 0

    asyncio.run(scenario())
    assert len(ImageStore(tmp_path / "store").list()) == 1


def test_two_pulls_in_one_process_share_a_layer(tmp_path: Path) -> None:
    registry = Hostile(Content(size=MIB))

    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with registry.serving() as address:
            await asyncio.gather(
                pull(f"{address}/app:1", store=store, config=quick()),
                pull(f"{address}/other:2", store=store, config=quick()),
            )
            assert {name for image in store.list() for name in image.references} == {
                f"{address}/app:1",
                f"{address}/other:2",
            }

    asyncio.run(scenario())
    assert len(registry.asked("/blobs/")) == 2


@pytest.mark.parametrize("seed", range(3))
def test_a_pull_killed_again_and_again_leaves_a_sound_store(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def scenario() -> None:
        source = ImageStore(tmp_path / "source")
        async with our_registry(tmp_path / "registry") as address:
            name = f"{address}/app:1"
            image = make_image(source, name, sizes=(1000, 2 * MIB, 3 * MIB, 5 * MIB), seed=seed)
            await push(name, store=source, config=quick())
            for _round in range(5):
                async with pulling(tmp_path / "store", name) as process:
                    assert process.stdout is not None
                    for _line in range(chance.randrange(1, 25)):
                        await process.stdout.readline()
                    kill(process)
                store = ImageStore(tmp_path / "store")
                assert store.check() == ()
            assert (await pull(name, store=store, config=quick())).id == image.id
            assert store.check() == ()
            assert list((store.root / "partial").iterdir()) == []
            assert list((store.root / "ingest").iterdir()) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("served", SERVERS)
def test_a_push_killed_again_and_again_is_ended_by_the_next(tmp_path: Path, served: Served) -> None:
    chance = random.Random(5)

    async def scenario() -> None:
        source = ImageStore(tmp_path / "source")
        async with served(tmp_path / "registry") as address:
            name = f"{address}/app:1"
            image = make_image(source, name, sizes=(1000, 2 * MIB, 3 * MIB, 5 * MIB))
            for _round in range(5):
                async with pulling(source.root, name, PUSH) as process:
                    assert process.stdout is not None
                    for _line in range(chance.randrange(1, 14)):
                        await process.stdout.readline()
                    kill(process)
                assert ImageStore(source.root).check() == ()
            await push(name, store=source, config=quick())
            store = ImageStore(tmp_path / "store")
            assert (await pull(name, store=store, config=quick())).id == image.id
            assert store.check() == ()

    asyncio.run(scenario())
