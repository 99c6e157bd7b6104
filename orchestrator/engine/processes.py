"""What the processes of containers do: their list as ps(1) shows it, and what they use."""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from dataclasses import dataclass
from typing import Any

from orchestrator.engine.host import Host
from orchestrator.engine.records import ContainerRecord
from runtime.errors import InvalidState, NotFound

_TICKS = os.sysconf("SC_CLK_TCK")
HEADS = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counters of a running container at one moment: `at` and `cpu` in ns, the rest in bytes."""

    at: int
    cpu: int
    memory: int
    memory_limit: int
    tasks: int
    read: int
    written: int
    received: int
    sent: int


def list_processes(host: Host, id: str) -> list[list[str]]:
    """Rows under `HEADS`, by pid; processes that end meanwhile are left out. Blocking.

    Read from the host's /proc and from nothing in the container. Raises NotFound.
    """
    boot = _boot_time()
    rows = []
    for pid in sorted(host.containers.processes(id)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            rows.append(_row(pid, boot))
    return rows


def _row(pid: int, boot: float) -> list[str]:
    """One process (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        name, _, rest = file.read().partition("(")[2].rpartition(") ")
    fields = rest.split()
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        command = file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    started = boot + int(fields[19]) / _TICKS
    used = (int(fields[11]) + int(fields[12])) / _TICKS
    elapsed = max(time.time() - started, 0.01)
    return [
        _user(os.stat(f"/proc/{pid}").st_uid),
        str(pid),
        fields[1],
        str(int(used * 100 / elapsed)),
        time.strftime("%H:%M" if elapsed < 86400 else "%b%d", time.localtime(started)),
        _terminal(int(fields[4])),
        time.strftime("%H:%M:%S", time.gmtime(used)),
        command or f"[{name}]",
    ]


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal(device: int) -> str:
    return f"pts/{os.minor(device)}" if 136 <= os.major(device) <= 143 else "?"


def _boot_time() -> float:
    with open("/proc/stat", encoding="ascii") as file:
        return next(float(line.split()[1]) for line in file if line.startswith("btime "))


def sample(host: Host, record: ContainerRecord) -> Sample | None:
    """What a container uses; None where it does not run. Blocking."""
    try:
        state = host.containers.get(record.id)
        if state.pid is None:
            return None
        usage = host.containers.usage(record.id)
        received, sent = _traffic(state.pid)
    except (InvalidState, NotFound, FileNotFoundError, ProcessLookupError):
        return None
    return Sample(
        at=time.monotonic_ns(),
        cpu=usage.cpu,
        memory=max(usage.memory - usage.cache, 0),
        memory_limit=usage.memory_limit or _host_memory(),
        tasks=usage.tasks,
        read=usage.read,
        written=usage.written,
        received=received,
        sent=sent,
    )


def pause(host: Host, id: str, paused: bool) -> bool:
    """Freeze or thaw a container; False where there is nothing to do. Blocking."""
    try:
        host.containers.pause(id, paused)
    except InvalidState:
        return False
    return True


def _traffic(pid: int) -> tuple[int, int]:
    """Bytes received and sent on all links of the process's network namespace but lo."""
    received = sent = 0
    with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
        for line in file.readlines()[2:]:
            name, _, counters = line.partition(":")
            if name.strip() != "lo":
                fields = counters.split()
                received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def to_json(record: ContainerRecord, found: Sample | None) -> dict[str, Any]:
    """The sample under the container's names; without one all counters are 0."""
    names = Sample.__slots__
    counters = {name: 0 if found is None else getattr(found, name) for name in names}
    return {"id": record.id, "name": record.name, "service": record.service, **counters}
