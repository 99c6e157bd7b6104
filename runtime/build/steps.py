"""What a RUN step needs from whoever runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from runtime.container.config import File, Mount, Tmpfs, Ulimit

Network = Literal["default", "none", "host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """One command to run on top of `layers` (lowest first); what it changes lands in `upper`.

    `upper` and `work` are empty directories in one file system; `env` are NAME=value texts.
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


class StepRunner(Protocol):
    """Runs RUN steps; `runtime.build.run` has the one that uses containers."""

    def run(self, step: RunStep, output: Callable[[bytes], None]) -> int:
        """Run to the end and give the exit code; `output` gets what the command prints.

        Raises RuntimeFault where the command cannot be started.
        """
        ...
