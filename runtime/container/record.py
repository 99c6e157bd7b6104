"""What is written down of a container's run: who runs it, and how it ended."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path

from runtime.linux import files, process


@functools.cache
def boot_id() -> str:
    """Names this boot of the kernel; pids of another one mean nothing (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecord:
    """`pid` and `monitor` with their start times in clock ticks; `started_at` in ns since 1970."""

    pid: int
    pid_started: int
    monitor: int
    monitor_started: int
    started_at: int
    boot: str = dataclasses.field(default_factory=boot_id)

    def alive(self) -> bool:
        """Whether the monitor of this run is still there."""
        return self.boot == boot_id() and process.start_time(self.monitor) == self.monitor_started


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """`exit_code` as a shell gives it (128 + signal); times in ns since 1970."""

    exit_code: int
    oom_killed: bool
    started_at: int
    finished_at: int
    error: str | None = None


def write_start(path: Path, record: StartRecord) -> None:
    content = json.dumps(dataclasses.asdict(record)).encode()
    files.write_atomically(path, content, mode=0o600, durable=False)


def read_start(path: Path) -> StartRecord | None:
    """None where there is none, or where a power cut has left it empty."""
    try:
        return StartRecord(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_exit(path: Path, record: ExitRecord) -> None:
    """Once this returns the exit code survives a power cut."""
    files.write_atomically(path, json.dumps(dataclasses.asdict(record)).encode(), mode=0o600)


def read_exit(path: Path) -> ExitRecord | None:
    try:
        return ExitRecord(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
