"""The container of one RUN step: made, started and taken away beside the build."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

from runtime.build.steps import Stop
from runtime.container import sessions
from runtime.container.containers import Containers
from runtime.container.gate import Gate
from runtime.container.log_reader import LogFollower
from runtime.container.record import ExitRecord
from runtime.errors import BuildError, InvalidState, RuntimeFault

CANCELED = "the build was canceled"
_LOOK = 1.0


class StepContainer:
    """A container that `made` makes, and takes away; its start waits at `gate`.

    The thread that begins with it makes it and starts it, and has it taken away once it is over:
    the build goes on meanwhile. `waker` gives a descriptor for the length of a block, readable
    once the build is to end; `stop` does so, too.
    """

    def __init__(
        self,
        containers: Containers,
        made: AbstractContextManager[str],
        *,
        gate: Gate,
        waker: Callable[[], AbstractContextManager[int]],
        stop: Stop,
    ) -> None:
        self._containers = containers
        self._made = made
        self._gate = gate
        self._waker = waker
        self._stop = stop
        self._started: Future[str] = Future()
        self._over = threading.Event()
        self._failure: Exception | None = None
        self._left = contextlib.ExitStack()
        self._ended: socket.socket | None = None
        self._thread = threading.Thread(target=self._live, name="build step")
        self._thread.start()

    def begin(self) -> None:
        """See `ReadyStep.begin`."""
        self._gate.open()

    def run(self, output: Callable[[bytes], None]) -> int:
        """See `ReadyStep.run`; raises BuildError once canceled."""
        try:
            with (
                self._waker() as waker,
                self._stop.calling(functools.partial(os.eventfd_write, waker, 1)),
            ):
                return self._watch(self._started.result(), waker, output)
        finally:
            self._over.set()

    def close(self) -> None:
        """See `ReadyStep.close`."""
        self._gate.give_up()
        self._over.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _live(self) -> None:
        try:
            with self._made as id, self._left:
                self._containers.start(id)
                self._started.set_result(id)
                self._over.wait()
                if self._ended is not None:
                    sessions.read_watch(self._ended)  # until its exit is recorded it is in use
        except Exception as error:
            if self._started.done():
                self._failure = error
            else:
                self._started.set_exception(error)
        finally:
            self._gate.path.unlink(missing_ok=True)

    def _watch(self, id: str, waker: int, output: Callable[[bytes], None]) -> int:
        with _following(self._containers.log_path(id)) as log:
            told = self._wait(id, log, waker, output)
            _emit(log, output)
        end = told or self._containers.get(id)
        if end.exit_code is None:
            raise RuntimeFault(f"the build step {id} ended without an exit code")
        if end.oom_killed:
            output(b"the step ran out of memory and was killed\n")
        return end.exit_code

    def _wait(
        self, id: str, log: LogFollower, waker: int, output: Callable[[bytes], None]
    ) -> ExitRecord | None:
        """Wait for the end; None where only what is on the disk tells how it was."""
        waited = [log.fileno(), waker]
        watch = None
        with contextlib.suppress(InvalidState, ConnectionError):  # it is just ending
            watch = self._left.enter_context(self._containers.watch(id, end=True))
            waited.append(watch.fileno())
        while not log.ended():
            _emit(log, output)
            # Without a connection the record's file wakes us, or a look now and then where a
            # killed monitor will write none.
            ready, _, _ = select.select(waited, [], [], None if watch else _LOOK)
            if waker in ready:
                raise BuildError(CANCELED)
            if watch is not None and watch.fileno() in ready:
                if (end := sessions.read_end(watch)) is not None:
                    self._ended = watch
                    return end
                waited.remove(watch.fileno())  # it closed before the record was there
                watch = None
            if not ready and self._containers.get(id).exit_code is not None:
                break
        return None


@contextlib.contextmanager
def _following(path: Path) -> Iterator[LogFollower]:
    log = LogFollower(path, from_start=True)
    try:
        yield log
    finally:
        # The kernel lets go of an inotify instance after a grace period: 10 ms or more, for
        # which nobody waits.
        threading.Thread(target=log.close, name="log close").start()


def _emit(log: LogFollower, output: Callable[[bytes], None]) -> None:
    entries = log.read()
    if entries:
        output("".join(entry.text for entry in entries).encode())
