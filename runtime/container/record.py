"""What is written down of a container's run: who runs it, and how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.linux import files, process

# Bytes kept for an exit record; blanks fill what is left of them.
_RESERVED = 4096


@functools.cache
def boot_id() -> str:
    """Names this boot of the kernel; pids of another one mean nothing (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecord:
    """`pid` and `monitor` (the keeper's process) with their start times in clock ticks;
    `started_at` in ns since 1970."""

    pid: int
    pid_started: int
    monitor: int
    monitor_started: int
    started_at: int
    cgroup_parent: str | None = None
    boot: str = dataclasses.field(default_factory=boot_id)

    def alive(self) -> bool:
        """Whether the process that records the exit is still there."""
        return self.boot == boot_id() and process.runs(self.monitor, self.monitor_started)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """`exit_code` as a shell gives it (128 + signal); times in ns since 1970."""

    exit_code: int
    oom_killed: bool
    started_at: int
    finished_at: int
    error: str | None = None


def read_start(path: Path | str) -> StartRecord | None:
    """None where there is none, or where a power cut has left it empty."""
    try:
        return StartRecord(**json.loads(files.read_small(path)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def exit_reserve(path: Path) -> Path:
    """Where the room for the exit record at `path` is kept."""
    return path.with_name(f".{path.name}.reserve")


def reserve_exit(path: Path) -> None:
    """Take the room that the exit record will need, as the container may fill the disk."""
    files.write_atomically(exit_reserve(path), bytes(_RESERVED), mode=0o600, durable=False)


def write_exit(path: Path, record: ExitRecord) -> None:
    """Once this returns the exit code survives a power cut; uses the reserve where there is one.

    Raises FileNotFoundError where the directory is gone.
    """
    if (fd := _put(path, record)) is not None:
        try:
            _sync(path, fd)
        finally:
            os.close(fd)


def write_exits(
    exits: Sequence[tuple[Path, ExitRecord]], *, passing: Collection[Path] = ()
) -> dict[Path, OSError]:
    """As `write_exit` for each; one whose directory is gone is left out. Gives those that could
    not be written, and why. Those that are `passing` need not survive a power cut.

    All are written before the first is synced, since that writes to the disk what the others
    have changed, too: ten at once take little longer than one.
    """
    failures: dict[Path, OSError] = {}
    with contextlib.ExitStack() as opened:
        written: list[tuple[Path, int]] = []
        for path, record in exits:
            try:
                if (fd := _put(path, record)) is not None:
                    opened.callback(os.close, fd)
                    if path not in passing:
                        written.append((path, fd))
            except FileNotFoundError:
                continue
            except OSError as error:
                failures[path] = error
        for path, fd in written:
            try:
                _sync(path, fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                failures[path] = error
    return failures


def _put(path: Path, record: ExitRecord) -> int | None:
    """Write into the reserve and give it its name: the open file, to be synced. None where there
    was no reserve, and all is done.

    A power cut before the sync may leave a record without content, which is as good as none.
    """
    content = json.dumps(dataclasses.asdict(record)).encode()
    reserve = exit_reserve(path)
    try:
        fd = os.open(reserve, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        files.write_atomically(path, content, mode=0o600)
        return None
    try:
        os.pwrite(fd, content.ljust(_RESERVED), 0)
        os.replace(reserve, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _sync(path: Path, fd: int) -> None:
    os.fsync(fd)
    files.sync_directory(path.parent)


def read_exit(path: Path | str) -> ExitRecord | None:
    try:
        return ExitRecord(**json.loads(files.read_small(path)))
    except (FileNotFoundError, ValueError, TypeError):
        return None
