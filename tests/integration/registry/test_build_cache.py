"""Build caches that travel by a registry: an artifact of their own, or in the image."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.build.events import BuildWarning, StepCached, StepDone
from runtime.errors import BuildError
from runtime.registry.push import push
from runtime.registry.server.app import serving
from runtime.registry.server.config import ServerConfig
from tests.integration.registry.peers import quick
from tests.unit.runtime.build.workshop import Workshop

DOCKERFILE = """\
FROM scratch AS made
COPY f /f
RUN first
FROM scratch
COPY --from=made /ran /other
RUN second
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Our server in a thread of its own; gives its address."""
    ready = threading.Event()
    address = ""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        nonlocal address
        config = ServerConfig(storage=tmp_path / "registry", listen="127.0.0.1:0")
        async with serving(config) as address:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield address
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Workshop]:
    """Makes workshops that know nothing of each other."""

    def make() -> Iterator[Workshop]:
        number = 0
        while True:
            number += 1
            (tmp_path / f"shop{number}").mkdir()
            shop = Workshop(tmp_path / f"shop{number}")
            shop.write({"f": "1"})
            yield shop

    return make()


def outcome(shop: Workshop) -> tuple[int, int]:
    """How many steps came from the cache, and how many were made."""
    cached = sum(isinstance(event, StepCached) for event in shop.events)
    return cached, sum(isinstance(event, StepDone) for event in shop.events)


def test_all_stages_come_from_a_registry(registry: str, places: Iterator[Workshop]) -> None:
    here, there = next(places), next(places)
    name = f"type=registry,ref={registry}/app:cache"
    first = here.build(DOCKERFILE, cache_to=(name,), registry=quick())
    assert outcome(here) == (0, 4)
    again = there.build(DOCKERFILE, cache_from=(name,), registry=quick())
    assert outcome(there) == (4, 0)
    assert again.id == first.id
    assert there.store.check() == ()
    # A later build knows them without the registry, and after a collection.
    there.store.collect_garbage()
    there.build(DOCKERFILE)
    assert outcome(there) == (4, 0)


def test_only_what_is_wanted_is_fetched(registry: str, places: Iterator[Workshop]) -> None:
    here, there = next(places), next(places)
    name = f"{registry}/app:cache"
    here.build(DOCKERFILE, cache_to=(name,), registry=quick())
    there.write({"f": "2"})
    there.build(DOCKERFILE, cache_from=(name,), registry=quick())
    # The first command prints the same for any file, so that what follows is known again.
    assert outcome(there) == (2, 2)
    assert len(list((there.store.root / "pins/build").glob("*/*.json"))) == 4


def test_the_least_cache_is_that_of_the_result(registry: str, places: Iterator[Workshop]) -> None:
    here, there = next(places), next(places)
    name = f"type=registry,ref={registry}/app:cache"
    here.build(DOCKERFILE, cache_to=(f"{name},mode=min",), registry=quick())
    there.build(DOCKERFILE, cache_from=(name,), registry=quick())
    assert outcome(there) == (2, 2)


def test_an_image_is_its_own_cache(registry: str, places: Iterator[Workshop]) -> None:
    here, there = next(places), next(places)
    name = f"{registry}/app:1"
    image = here.build("FROM scratch\nCOPY f /f\nRUN x\n", cache_to=("type=inline",), tags=(name,))
    asyncio.run(push(name, store=here.store, config=quick()))
    again = there.build("FROM scratch\nCOPY f /f\nRUN x\n", cache_from=(name,), registry=quick())
    assert outcome(there) == (2, 0)
    assert again.id == image.id


def test_a_cache_that_cannot_be_read_is_a_warning(
    registry: str, places: Iterator[Workshop]
) -> None:
    shop = next(places)
    plain = f"{registry}/plain:1"
    shop.build("FROM scratch\nCOPY f /f\n", tags=(plain,))
    asyncio.run(push(plain, store=shop.store, config=quick()))
    for name in (f"{registry}/nothing:1", plain):
        shop.build("FROM scratch\nCOPY f /f\n", cache_from=(name,), registry=quick())
        [warning] = [event for event in shop.events if isinstance(event, BuildWarning)]
        assert warning.rule == "CacheImport"
        assert name in warning.message


def test_a_blob_that_is_gone_is_a_warning_and_the_step_is_made(
    registry: str, places: Iterator[Workshop], tmp_path: Path
) -> None:
    here, there = next(places), next(places)
    name = f"{registry}/app:cache"
    here.build(DOCKERFILE, cache_to=(name,), registry=quick())
    for blob in (tmp_path / "registry" / "blobs").rglob("*"):
        if blob.is_file() and not blob.read_bytes().startswith(b"{"):
            blob.write_bytes(bytes(blob.stat().st_size))
    there.build(DOCKERFILE, cache_from=(name,), registry=quick())
    assert outcome(there) == (0, 4)
    assert {event.rule for event in there.events if isinstance(event, BuildWarning)} == {
        "CacheImport"
    }
    assert there.store.check() == ()


def test_a_cache_that_cannot_be_written_fails_the_build(places: Iterator[Workshop]) -> None:
    shop = next(places)
    name = "type=registry,ref=127.0.0.1:1/app:cache"
    with pytest.raises(BuildError, match="cannot write the build cache 127"):
        shop.build("FROM scratch\nCOPY f /f\n", cache_to=(name,), registry=quick(attempts=1))
    shop.build(
        "FROM scratch\nCOPY f /f\n",
        cache_to=(f"{name},ignore-error=true",),
        registry=quick(attempts=1),
    )
    assert [event.rule for event in shop.events if isinstance(event, BuildWarning)] == [
        "CacheExport"
    ]
