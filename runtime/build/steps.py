"""What a RUN step needs from whoever runs it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from runtime.container.config import File, Mount, Tmpfs, Ulimit

Network = str
"""What a step's network is called: default, none, host, or a name that its runner knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSecret:
    """What a build may read without keeping it. Owner and mode hold where `RUN --mount` says
    nothing else."""

    content: bytes
    uid: int = 0
    gid: int = 0
    mode: int = 0o400


class Stop:
    """Says once that a build is to end; who runs a step of it hears of it at once."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._calls: dict[object, Callable[[], object]] = {}
        self._is_set = False

    def set(self) -> None:
        with self._mutex:
            self._is_set = True
            for call in self._calls.values():
                call()

    def is_set(self) -> bool:
        return self._is_set

    @contextlib.contextmanager
    def calling(self, call: Callable[[], object]) -> Iterator[None]:
        """Have `call` called, from any thread, when it is set, or now where it is set already;
        never after the block is left."""
        key = object()
        with self._mutex:
            self._calls[key] = call
            if self._is_set:
                call()
        try:
            yield
        finally:
            with self._mutex:
                del self._calls[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """One command to run on top of `layers` (lowest first); what it changes lands in `upper`.

    `upper` and `work` are empty directories in one file system; `env` are NAME=value texts.
    `memory` in bytes bounds what it uses; a `privileged` one is not confined. The step is killed
    when `stop` is set.
    """

    layers: tuple[str, ...]
    upper: Path
    work: Path
    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    network: Network = "default"
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    files: tuple[File, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    memory: int | None = None
    privileged: bool = False
    stop: Stop = field(default_factory=Stop)


class StepRunner(Protocol):
    """Runs RUN steps; `runtime.build.run` has the one that uses containers."""

    def run(self, step: RunStep, output: Callable[[bytes], None]) -> int:
        """Run to the end and give the exit code; `output` gets what the command prints.

        Raises RuntimeFault where the command cannot be started.
        """
        ...


class ReadyStep(Protocol):
    """A step for which all is ready but its layers."""

    def begin(self) -> None:
        """Let it go on, as the layers are there now; never waits."""
        ...

    def run(self, output: Callable[[bytes], None]) -> int:
        """As `StepRunner.run`, of what has begun; once."""
        ...

    def close(self) -> None:
        """Take away what was made for it, also where it was never run; waits until that is done."""
        ...


@runtime_checkable
class ForesightedRunner(StepRunner, Protocol):
    """Can make a step ready while another runs."""

    def ready(self, step: RunStep) -> ReadyStep:
        """Begin to make a step ready, whose `layers` need not be there yet; never waits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeseenRun:
    """A RUN that is made ready while the layer that it will stand on is still being made.

    `below` is where a link to that layer will be, `upper` where the RUN writes.
    """

    below: Path
    upper: Path
    ready: ReadyStep

    def put_on(self, layer: Path) -> None:
        """The layer is complete."""
        os.symlink(layer, self.below)
