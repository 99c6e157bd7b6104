"""The server killed at any moment: what it has said to have, it has, and it goes on."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtime.images.store import ImageStore
from runtime.registry.errors import RegistryError
from runtime.registry.pull import pull
from runtime.registry.push import Pushed, push
from runtime.registry.server.check import check, incomplete
from runtime.registry.server.storage import Storage
from tests.integration.registry.peers import make_image, quick

MIB = 1024 * 1024

SERVE = """
import asyncio, sys
from pathlib import Path
from runtime.registry.server.app import serve
from runtime.registry.server.config import Retention, ServerConfig

config = ServerConfig(
    storage=Path(sys.argv[1]),
    listen="127.0.0.1:0",
    collect_every=float(sys.argv[3]) if sys.argv[3] else None,
    retention=Retention(unused_age=float(sys.argv[2]), untagged_age=0.0),
)
asyncio.run(serve(config, ready=lambda address: print(address, flush=True)))
"""


@asynccontextmanager
async def served(
    directory: Path, *, unused_age: float = 86400.0, collecting: bool = False
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVE,
        str(directory),
        str(unused_age),
        "0.001" if collecting else "",
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            address = (await process.stdout.readline()).decode().strip()
        assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
        yield address, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("seed", range(4))
def test_a_server_killed_while_images_are_pushed_has_what_it_has_promised(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    store = ImageStore(tmp_path / "store")
    images = [
        make_image(store, f"local/app:{n}", sizes=(1000, MIB, 3 * MIB), seed=n) for n in range(4)
    ]
    promised: dict[str, Pushed] = {}

    async def scenario() -> None:
        for _round in range(3):
            async with served(tmp_path / "registry") as (address, process):

                async def push_all(address: str = address) -> None:
                    for number, image in enumerate(images):
                        name = f"{address}/app:{number}"
                        pushed = await push(
                            name, source=image.id, store=store, config=quick(attempts=1)
                        )
                        promised[f"app:{number}"] = pushed

                async def kill(process: asyncio.subprocess.Process = process) -> None:
                    await asyncio.sleep(chance.uniform(0.0, 0.4))
                    process.kill()

                outcome, _ = await asyncio.gather(push_all(), kill(), return_exceptions=True)
                # It was killed under the push, or the push was quicker.
                assert outcome is None or isinstance(outcome, RegistryError)
        async with served(tmp_path / "registry") as (address, _process):
            target = ImageStore(tmp_path / "target")
            for name, pushed in promised.items():
                pulled = await pull(f"{address}/{name}", store=target, config=quick())
                assert pulled.digest == pushed.digest
            for number, image in enumerate(images):
                name = f"{address}/app:{number}"
                await push(name, source=image.id, store=store, config=quick())
            assert target.check() == ()

    asyncio.run(scenario())
    storage = Storage(tmp_path / "registry")
    assert check(storage) == ()
    assert incomplete(storage) == ()
    storage.close()


def test_a_server_killed_while_it_collects_loses_no_image(tmp_path: Path) -> None:
    chance = random.Random(7)
    store = ImageStore(tmp_path / "store")
    images = [make_image(store, f"local/app:{n}", sizes=(1000, MIB), seed=n) for n in range(3)]

    async def scenario() -> None:
        for _round in range(5):
            async with served(tmp_path / "registry", unused_age=0.0, collecting=True) as (
                address,
                process,
            ):

                async def push_all(address: str = address) -> None:
                    for number, image in enumerate(images * 3):
                        # The same tag again and again: what it pointed to before is garbage.
                        try:
                            await push(
                                f"{address}/app:{number % 2}",
                                source=image.id,
                                store=store,
                                config=quick(attempts=2),
                            )
                        except RegistryError as exc:
                            if process.returncode is None and "MANIFEST_BLOB" not in exc.codes:
                                continue  # swept before its manifest came, as asked for

                async def kill(process: asyncio.subprocess.Process = process) -> None:
                    await asyncio.sleep(chance.uniform(0.1, 0.8))
                    process.kill()
                    await process.wait()

                await asyncio.gather(push_all(), kill())
            storage = Storage(tmp_path / "registry")
            assert check(storage) == ()
            assert incomplete(storage) == ()
            storage.close()

    asyncio.run(scenario())


def test_a_server_that_is_told_to_end_ends_soon_and_keeps_what_has_arrived(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    image = make_image(store, "local/app:1", sizes=(32 * MIB,))

    async def scenario() -> None:
        async with served(tmp_path / "registry") as (address, process):
            started = asyncio.Event()
            pushing = asyncio.create_task(
                push(
                    f"{address}/app:1",
                    source=image.id,
                    store=store,
                    config=quick(attempts=1),
                    progress=lambda event: started.set() if event.stage == "uploading" else None,
                )
            )
            await started.wait()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await process.wait() == 0
            await asyncio.gather(pushing, return_exceptions=True)
        async with served(tmp_path / "registry") as (address, _process):
            await push(f"{address}/app:1", source=image.id, store=store, config=quick())
        storage = Storage(tmp_path / "registry")
        assert check(storage) == ()
        storage.close()

    asyncio.run(scenario())
