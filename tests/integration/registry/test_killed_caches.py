"""Builds killed while their cache travels by a registry: both stores stay sound, the next try
succeeds."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.images.store import ImageStore
from runtime.registry.server.app import serving
from runtime.registry.server.check import check
from runtime.registry.server.config import ServerConfig
from runtime.registry.server.storage import Storage

MIB = 1024 * 1024

BUILD = """
import sys
from pathlib import Path
from runtime.build.builder import BuildRequest, build
from runtime.build.events import StepCached
from runtime.images.store import ImageStore
from tests.integration.registry.peers import quick

class Writer:
    def run(self, step, output):
        (step.upper / "ran").write_bytes(step.argv[-1].encode() * 1000)
        return 0

place, address, direction = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
name = (f"type=registry,ref={address}/app:cache",)
events = []
build(
    BuildRequest(
        context=place.parent / "context",
        dockerfile_inline="FROM scratch\\nCOPY a /\\nRUN one\\nCOPY b /\\nRUN two\\n",
        registry=quick(),
        **{direction: name},
    ),
    store=ImageStore(place), steps=Writer(), progress=events.append,
)
print(sum(isinstance(event, StepCached) for event in events))
"""


class Relay:
    """Passes connections on to the registry, and counts the bytes; `reached` is called once,
    when `limit` of them have passed."""

    def __init__(self) -> None:
        self.address = ""
        self.passed = 0
        self.limit = sys.maxsize
        self.reached: Callable[[], object] = lambda: None

    async def pipe(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while piece := await source.read(16 * 1024):
                self.passed += len(piece)
                if self.passed >= self.limit:
                    self.limit = sys.maxsize
                    self.reached()
                target.write(piece)
                await target.drain()
        except ConnectionError:
            return
        finally:
            target.close()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """Our server and a relay before it, in a thread of their own."""
    made = Relay()
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        config = ServerConfig(storage=tmp_path / "registry", listen="127.0.0.1:0")
        async with serving(config) as address:
            host, _, port = address.rpartition(":")

            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                back, forth = await asyncio.open_connection(host, int(port))
                await asyncio.gather(made.pipe(reader, forth), made.pipe(back, writer))

            server = await asyncio.start_server(connected, "127.0.0.1", 0)
            made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ready.set()
            await stop.wait()
            server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield made
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def attempt(relay: Relay, place: Path, direction: str, limit: int | None) -> int | None:
    """Build in a process of its own, killed once `limit` bytes have passed: how many steps came
    from a cache, None where it was killed."""
    relay.passed, relay.limit = 0, sys.maxsize if limit is None else limit
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, str(place), relay.address, direction],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        relay.reached = process.kill
        assert process.stdout is not None
        said = process.stdout.read()
    relay.limit = sys.maxsize
    assert process.returncode == 0 or limit is not None
    return int(said) if process.returncode == 0 else None


@pytest.mark.timeout(180)
def test_a_build_killed_while_its_cache_travels_leaves_sound_stores(
    relay: Relay, tmp_path: Path
) -> None:
    (tmp_path / "context").mkdir()
    chance = random.Random(5)
    for name in ("a", "b"):
        (tmp_path / "context" / name).write_bytes(chance.randbytes(2 * MIB))
    assert attempt(relay, tmp_path / "whole", "cache_to", None) == 0
    sent = relay.passed
    assert sent > 4 * MIB
    killed = 0
    for number, share in enumerate((0.001, 0.4, 0.9)):
        giver, taker = tmp_path / f"giver{number}", tmp_path / f"taker{number}"
        # Another content each time: what the registry has is not sent again.
        (tmp_path / "context" / "b").write_bytes(chance.randbytes(2 * MIB))
        (tmp_path / "context" / "a").write_bytes(chance.randbytes(2 * MIB))
        for direction, place in (("cache_to", giver), ("cache_from", taker)):
            killed += attempt(relay, place, direction, int(sent * share)) is None
            store = ImageStore(place)  # opening it sweeps
            assert store.check() == ()
            assert list((place / "ingest").iterdir()) == []
            again = attempt(relay, place, direction, None)
            assert ImageStore(place).check() == ()
            assert again is not None
            if direction == "cache_from":
                assert again == 4
    assert killed >= 5
    storage = Storage(tmp_path / "registry")
    assert check(storage) == ()
    storage.close()
