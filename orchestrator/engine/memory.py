"""Keeps a process small that lives long: few heaps, and nothing that is free is kept."""

from __future__ import annotations

import asyncio
import gc

from runtime.linux import memory

HEAPS = 1
QUIET = 1.0

# Objects that are made until the collector looks by itself. It is asked to after each piece of
# work, and a plan makes so many that are all in use that looking meanwhile is in vain.
COLLECT_AFTER = 5_000


def keep_small() -> None:
    """To be called before the first thread starts."""
    memory.limit_arenas(HEAPS)


def settle() -> None:
    """After a start: what it made stays for good, so the collector need not look at it again,
    and what it left free goes back."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    memory.give_back()


def give_back() -> None:
    """What is free goes back to the kernel: a plan of 30 services leaves 10 MB. Blocking."""
    gc.collect()
    memory.give_back()


class Tidying:
    """Gives memory back some time after the last piece of work, so that nobody waits for it; and
    at once after a large one, which is followed by a pause, be it that a command takes to start."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """A piece of work has ended."""
        self.close()
        self._timer = asyncio.get_running_loop().call_later(QUIET, self._tidy)

    def now(self) -> None:
        """A large piece of work has ended; what it leads to is still under way."""
        self.soon()
        self._give_back()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tidy(self) -> None:
        self._timer = None
        self._give_back()

    def _give_back(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, give_back)
