"""Unfinished blobs: taken up, verified, and written by one at a time."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import threading
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images.store import ImageStore
from runtime.oci.descriptor import LAYER, Descriptor
from runtime.registry.partial import Partials, lock

CONTENT = b"0123456789" * 1000


def described(content: bytes, size: int | None = None) -> Descriptor:
    return Descriptor(
        media_type=LAYER,
        digest="sha256:" + hashlib.sha256(content).hexdigest(),
        size=len(content) if size is None else size,
    )


def test_a_blob_appears_only_when_it_is_whole_and_right(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    descriptor = described(CONTENT)

    async def scenario() -> None:
        async with Partials(tmp_path).hold(descriptor) as partial:
            partial.write(CONTENT)
            assert not store.blobs.has(descriptor.digest)
            with store.lease() as lease:
                partial.publish(store.blobs, lease)

    asyncio.run(scenario())
    assert store.blobs.verify(descriptor.digest)
    assert list((tmp_path / "partial").iterdir()) == []


def test_what_was_received_is_taken_up_later(tmp_path: Path) -> None:
    descriptor = described(CONTENT)

    async def scenario() -> None:
        partials = Partials(tmp_path)
        with pytest.raises(ConnectionError):
            async with partials.hold(descriptor) as partial:
                partial.write(CONTENT[:3000])
                raise ConnectionError
        async with partials.hold(descriptor) as partial:
            partial.take_up()
            assert (partial.offset, partial.resumed) == (3000, True)
            partial.write(CONTENT[3000:])
            assert partial.is_right()

    asyncio.run(scenario())


def test_content_of_another_digest_is_refused_and_thrown_away(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    descriptor = described(CONTENT)

    async def scenario() -> None:
        async with Partials(tmp_path).hold(descriptor) as partial:
            partial.write(b"x" * len(CONTENT))
            with store.lease() as lease, pytest.raises(ImageError, match="something else"):
                partial.publish(store.blobs, lease)

    asyncio.run(scenario())
    assert not store.blobs.has(descriptor.digest)
    assert list((tmp_path / "partial").iterdir()) == []


def test_more_bytes_than_promised_are_refused_when_they_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Partials(tmp_path).hold(described(CONTENT, size=10)) as partial:
            with pytest.raises(ImageError, match="longer"):
                partial.write(CONTENT)

    asyncio.run(scenario())


def test_an_empty_blob_can_be_had(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    descriptor = described(b"")

    async def scenario() -> None:
        async with Partials(tmp_path).hold(descriptor) as partial:
            assert partial.complete
            with store.lease() as lease:
                partial.publish(store.blobs, lease)

    asyncio.run(scenario())
    assert store.blobs.size(descriptor.digest) == 0


def test_who_waits_goes_on_when_the_other_is_done(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    descriptor = described(CONTENT)
    order: list[str] = []

    async def first(holds: asyncio.Event, go: asyncio.Event) -> None:
        async with Partials(tmp_path).hold(descriptor) as partial:
            holds.set()
            await go.wait()
            partial.write(CONTENT)
            with store.lease() as lease:
                partial.publish(store.blobs, lease)
            order.append("first")

    async def second(holds: asyncio.Event) -> None:
        await holds.wait()
        async with Partials(tmp_path).hold(descriptor) as partial:
            order.append("second")
            assert store.blobs.has(descriptor.digest)
            assert partial.offset == 0

    async def scenario() -> None:
        holds, go = asyncio.Event(), asyncio.Event()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(first(holds, go))
            group.create_task(second(holds))
            await holds.wait()
            go.set()

    asyncio.run(scenario())
    assert order == ["first", "second"]
    assert list((tmp_path / "partial").iterdir()) == []


def test_waiting_can_be_cancelled_and_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    holder = os.open(path, os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)

    async def scenario() -> None:
        fd = os.open(path, os.O_RDWR)
        waiting = asyncio.create_task(lock(fd))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        os.close(fd)

    asyncio.run(scenario())
    os.close(holder)
    for thread in threading.enumerate():
        if thread.name == "flock":
            thread.join(10)
    again = os.open(path, os.O_RDWR)
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(again)


def test_old_remains_are_swept_and_those_in_work_are_not(tmp_path: Path) -> None:
    partials = Partials(tmp_path)
    old, used, new = (partials.path(described(c).digest) for c in (b"a", b"b", b"c"))
    for path in (old, used, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    os.utime(used, (0, 0))
    holder = os.open(used, os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert partials.sweep() == 1
    os.close(holder)
    assert (old.exists(), used.exists(), new.exists()) == (False, True, True)


def test_a_digest_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not a digest"):
        Partials(tmp_path).path("sha256:../../etc/passwd")
