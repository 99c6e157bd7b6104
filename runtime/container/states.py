"""What is known of a container, from what its monitor recorded or could not record."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.cgroups.manager import open_cgroup
from runtime.container.paths import CONFIG, EXIT, LOG, STATE, Instance
from runtime.container.record import ExitRecord, StartRecord, boot_id, read_exit, read_start

Status = Literal["created", "running", "paused", "exited"]

_LOST = 137


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """What is known of a container; times in ns since 1970. A `lost` one was ended by the loss
    of its monitor, which nobody has put in order yet."""

    id: str
    status: Status
    pid: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    error: str | None = None
    lost: bool = False


def look(instance: Instance, id: str) -> ContainerState | None:
    """What is known of a container now; None where there is none.

    By the plainest means, as all containers are looked at again and again.
    """
    directory = instance.directory(id)
    if not os.path.exists(f"{directory}/{CONFIG}"):
        return None
    exited = read_exit(f"{directory}/{EXIT}")
    if exited is not None:
        return exited_state(id, exited)
    started = read_start(f"{directory}/{STATE}")
    if started is None:
        return ContainerState(id=id, status="created")
    if started.alive():
        cgroup = open_cgroup(*instance.cgroup(id, started.cgroup_parent))
        return ContainerState(
            id=id,
            status="paused" if cgroup.frozen() else "running",
            pid=started.pid,
            started_at=started.started_at,
        )
    # It may have ended between the two looks.
    exited = read_exit(f"{directory}/{EXIT}")
    if exited is not None:
        return exited_state(id, exited)
    lost = lost_exit(started, Path(directory, LOG))
    return dataclasses.replace(exited_state(id, lost), lost=True)


def exited_state(id: str, record: ExitRecord) -> ContainerState:
    """The state of a container whose run has ended."""
    return ContainerState(
        id=id,
        status="exited",
        started_at=record.started_at,
        finished_at=record.finished_at,
        exit_code=record.exit_code,
        oom_killed=record.oom_killed,
        error=record.error,
    )


def lost_exit(started: StartRecord, log: Path, *, settled: bool = False) -> ExitRecord:
    """What is said of a run that nobody has seen the end of.

    It ended after it last said something, and before it was found (`settled`) or the host was
    started anew.
    """
    ended = started.started_at
    with contextlib.suppress(FileNotFoundError):
        ended = max(ended, log.stat().st_mtime_ns)
    if settled and started.boot == boot_id():
        ended = max(ended, time.time_ns())
    return ExitRecord(
        exit_code=_LOST,
        oom_killed=False,
        started_at=started.started_at,
        finished_at=ended,
        error="its monitor ended without recording an exit",
    )
