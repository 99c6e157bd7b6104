"""The part of the CPU that real-time processes of a v1 group may have.

A group can have no more than the groups above it (sched-rt-group.rst of the kernel), which have
nothing at first, so they are given what their groups need.
"""

from __future__ import annotations

import fcntl
import math
import os
from pathlib import Path

from runtime.cgroups.manager import write

_PERIOD = 1_000_000
_RUNTIME_FILE, _PERIOD_FILE = "cpu.rt_runtime_us", "cpu.rt_period_us"


def grant(root: Path, place: Path, runtime: int) -> None:
    """Let the groups above `root`/`place`, whose period is set, have as much as all that lies in
    them needs once it has `runtime` µs. Raises RuntimeFault where the host has less."""
    group = root / place
    above = [root / parent for parent in list(place.parents)[:-1]]
    if not above or not runtime:
        return
    fd = os.open(above[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Others may start below the same groups at the same time.
        fcntl.flock(fd, fcntl.LOCK_EX)
        needs = []
        below, needed = group, runtime / _read(group, _PERIOD_FILE)
        for parent in above:
            others = sum(
                _part(child) for child in parent.iterdir() if child.is_dir() and child != below
            )
            needed = max(needed + others, _part(parent))
            needs.append((parent, needed))
            below = parent
        for parent, part in reversed(needs):
            if part > _part(parent):
                write(parent / _PERIOD_FILE, str(_PERIOD))
                write(parent / _RUNTIME_FILE, str(math.ceil(part * _PERIOD)))
    finally:
        os.close(fd)


def _part(group: Path) -> float:
    return max(0, _read(group, _RUNTIME_FILE)) / _read(group, _PERIOD_FILE)


def _read(group: Path, file: str) -> int:
    return int((group / file).read_text())
