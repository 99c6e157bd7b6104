"""Network transfers in the middle of a build, which runs in threads of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_LOOK = 0.2
_T = TypeVar("_T")


def finish(work: Coroutine[Any, Any, _T], wait: Callable[[float], object]) -> _T:
    """Run `work` to its end; what `wait` raises, which is called again and again, ends it."""

    async def watched() -> _T:
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=_LOOK)
                wait(0)
        finally:
            task.cancel()
            await asyncio.wait({task})
        return task.result()

    return asyncio.run(watched())
