"""Moving bytes between a socket and a disk without holding up the event loop.

Pieces are gathered to about a mebibyte and written (and hashed) in a worker thread while
the loop reads the next ones, so that network, disk and SHA-256 work side by side and memory
stays bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar

PIECE = 1024 * 1024

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function that blocks in a worker thread.

    A caller that is cancelled waits until the thread is done: it may hold files, locks or a
    lease that the caller is about to close.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # is taken notice of; the cancellation is what is told
        raise


async def gathered(pieces: AsyncIterator[bytes], size: int = PIECE) -> AsyncIterator[bytes]:
    """The same bytes in pieces of at least `size`, but for the last.

    Where the source fails, what it gave before comes first, then the failure.
    """
    waiting: list[bytes] = []
    length = 0
    failure: Exception | None = None
    try:
        async for piece in pieces:
            waiting.append(piece)
            length += len(piece)
            if length >= size:
                yield b"".join(waiting)
                waiting, length = [], 0
    except Exception as exc:
        failure = exc
    if waiting:
        yield b"".join(waiting)
    if failure is not None:
        raise failure


async def drain(
    pieces: AsyncIterator[bytes],
    write: Callable[[bytes], Any],
    *,
    written: Callable[[int], None] | None = None,
) -> int:
    """Write all pieces, in order, one ahead of the other; the number of bytes.

    When reading fails or is cancelled, what was read before is written all the same: a
    broken transfer can go on from there. `written` hears of every piece's length.
    """
    total = 0
    pending: asyncio.Future[Any] | None = None
    try:
        async for piece in gathered(pieces):
            if pending is not None:
                await asyncio.shield(pending)
            pending = asyncio.ensure_future(asyncio.to_thread(write, piece))
            total += len(piece)
            if written is not None:
                written(len(piece))
    finally:
        # The thread must be out of the file before the caller closes it.
        if pending is not None and not pending.done():
            await asyncio.wait({pending})
    if pending is not None:
        pending.result()
    return total


async def read_pieces(file: io.FileIO, offset: int, length: int) -> AsyncIterator[bytes]:
    """`length` bytes of a file from `offset`, read ahead by one piece in a worker thread."""
    file.seek(offset)
    following = asyncio.ensure_future(asyncio.to_thread(file.read, min(PIECE, length)))
    try:
        while length > 0:
            piece = await asyncio.shield(following)
            if not piece:
                raise EOFError(f"{file.name!s} is {length} bytes shorter than it should be")
            length -= len(piece)
            if length > 0:
                following = asyncio.ensure_future(asyncio.to_thread(file.read, min(PIECE, length)))
            yield piece
    finally:
        if not following.done():
            await asyncio.wait({following})


async def side_by_side(work: Iterable[Callable[[], Coroutine[Any, Any, T]]], limit: int) -> list[T]:
    """Run what `work` makes, `limit` at a time; the first failure cancels the rest."""
    gate = asyncio.Semaphore(limit)

    async def admitted(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with gate:
            return await make()

    return await together([admitted(make) for make in work])


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at once; the first failure cancels the rest and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in work]
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    return [task.result() for task in tasks]


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
