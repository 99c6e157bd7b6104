"""What a build does beside its steps, and waits for before it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

_AT_ONCE = 4


class Aside:
    """Work that no step waits for, such as writing a finished layer out to the disk.

    A context manager: all of it is over when the block is left, which raises the first error.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="aside")
        self._mutex = threading.Lock()
        self._begun: list[Future[None]] = []

    def do(self, work: Callable[[], None]) -> None:
        """Begin with `work`; from any thread."""
        with self._mutex:
            self._begun.append(self._pool.submit(work))

    def finish(self) -> None:
        """Wait for all that was begun; raises the first error of it."""
        with self._mutex:
            begun, self._begun = self._begun, []
        for future in begun:
            future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()
        if error is None:
            self.finish()
