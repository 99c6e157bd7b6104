"""What a limit is called in each version: pure tables from Resources to file contents.

Sources: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the kernel; the weight
conversions are those of the OCI runtimes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from runtime.container.config import IoLimit, Resources
from runtime.errors import RuntimeFault

_PERIOD = 100_000
_RT_PERIOD = 1_000_000
_NOTHING = Resources()

INHERIT = "inherit"
"""Stands for the value of the group above, where the kernel has no word for no limit."""

Number = Callable[[str], str]
"""Gives a block device's number ("254:0") by its path."""

_V1_THROTTLES = {
    "read_bps": "blkio.throttle.read_bps_device",
    "write_bps": "blkio.throttle.write_bps_device",
    "read_iops": "blkio.throttle.read_iops_device",
    "write_iops": "blkio.throttle.write_iops_device",
}
_V2_THROTTLES = {
    "read_bps": "rbps",
    "write_bps": "wbps",
    "read_iops": "riops",
    "write_iops": "wiops",
}


def device_number(path: str) -> str:
    """Raises RuntimeFault for what is no block device."""
    try:
        found = os.stat(path)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise RuntimeFault(f"limit the block device {path}: {reason}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise RuntimeFault(f"limit the block device {path}: it is none")
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def _quota(resources: Resources) -> tuple[int, int] | None:
    """CPU time and period in µs, None where nothing limits."""
    period = resources.cpu_period or _PERIOD
    if resources.cpus:
        return int(resources.cpus * period), period
    if resources.cpu_quota:
        return resources.cpu_quota, period
    return None


def v1_files(
    resources: Resources, before: Resources = _NOTHING, number: Number = device_number
) -> list[tuple[str, str, str]]:
    """(controller, file, content) in the order in which they must be written; what `before` had
    and `resources` has not is lifted first."""
    writes = _v1_lifts(before, resources)
    if resources.memory:
        writes.append(("memory", "memory.limit_in_bytes", str(resources.memory)))
        swap = _swap(resources)
        if swap is not None:
            writes.append(("memory", "memory.memsw.limit_in_bytes", str(swap)))
    if resources.memory_reservation:
        writes.append(("memory", "memory.soft_limit_in_bytes", str(resources.memory_reservation)))
    if resources.memory_swappiness is not None:
        writes.append(("memory", "memory.swappiness", str(resources.memory_swappiness)))
    if resources.oom_kill_disable:
        writes.append(("memory", "memory.oom_control", "1"))
    if resources.cpu_shares:
        writes.append(("cpu", "cpu.shares", str(resources.cpu_shares)))
    quota = _quota(resources)
    if quota is not None:
        writes.append(("cpu", "cpu.cfs_period_us", str(quota[1])))
        writes.append(("cpu", "cpu.cfs_quota_us", str(quota[0])))
    if resources.cpuset:
        writes.append(("cpuset", "cpuset.cpus", resources.cpuset))
    if resources.pids:
        writes.append(("pids", "pids.max", "max" if resources.pids < 0 else str(resources.pids)))
    if resources.blkio_weight:
        writes.append(("blkio", "blkio.bfq.weight", str(resources.blkio_weight)))
    for path, key, value in _io_changes(before, resources):
        file = _V1_THROTTLES.get(key, "blkio.bfq.weight_device")
        writes.append(("blkio", file, f"{number(path)} {value or 0}"))
    if resources.cpu_rt_runtime:
        period = resources.cpu_rt_period or _RT_PERIOD
        writes.append(("cpu", "cpu.rt_period_us", str(period)))
        writes.append(("cpu", "cpu.rt_runtime_us", str(resources.cpu_rt_runtime)))
    return writes


def v2_files(
    resources: Resources, before: Resources = _NOTHING, number: Number = device_number
) -> list[tuple[str, str, str]]:
    """(controller, file, content), as `v1_files`. Raises RuntimeFault for what v2 has not."""
    if resources.cpu_rt_runtime:
        raise RuntimeFault(
            "control groups v2 have no part for real-time processes",
            hint="leave cpu_rt_runtime and cpu_rt_period out",
        )
    writes = _v2_lifts(before, resources)
    if resources.memory:
        writes.append(("memory", "memory.max", str(resources.memory)))
        swap = _swap(resources)
        if swap is not None:
            only_swap = "max" if swap < 0 else str(max(0, swap - resources.memory))
            writes.append(("memory", "memory.swap.max", only_swap))
    if resources.memory_reservation:
        writes.append(("memory", "memory.low", str(resources.memory_reservation)))
    if resources.cpu_shares:
        weight = 1 + (resources.cpu_shares - 2) * 9999 // 262142
        writes.append(("cpu", "cpu.weight", str(weight)))
    quota = _quota(resources)
    if quota is not None:
        limit = "max" if quota[0] < 0 else str(quota[0])
        writes.append(("cpu", "cpu.max", f"{limit} {quota[1]}"))
    if resources.cpuset:
        writes.append(("cpuset", "cpuset.cpus", resources.cpuset))
    if resources.pids:
        writes.append(("pids", "pids.max", "max" if resources.pids < 0 else str(resources.pids)))
    if resources.blkio_weight:
        writes.append(("io", "io.weight", f"default {_io_weight(resources.blkio_weight)}"))
    for path, key, value in _io_changes(before, resources):
        if key == "weight":
            content = "default" if value is None else str(_io_weight(value))
            writes.append(("io", "io.weight", f"{number(path)} {content}"))
        else:
            content = f"{_V2_THROTTLES[key]}={'max' if value is None else value}"
            writes.append(("io", "io.max", f"{number(path)} {content}"))
    return writes


def _v1_lifts(before: Resources, now: Resources) -> list[tuple[str, str, str]]:
    lifts = []
    if before.memory and not now.memory:
        lifts.append(("memory", "memory.memsw.limit_in_bytes", "-1"))
        lifts.append(("memory", "memory.limit_in_bytes", "-1"))
    if before.memory_reservation and not now.memory_reservation:
        lifts.append(("memory", "memory.soft_limit_in_bytes", "-1"))
    if before.memory_swappiness is not None and now.memory_swappiness is None:
        lifts.append(("memory", "memory.swappiness", INHERIT))
    if before.cpu_shares and not now.cpu_shares:
        lifts.append(("cpu", "cpu.shares", "1024"))
    if _quota(before) and not _quota(now):
        lifts.append(("cpu", "cpu.cfs_quota_us", "-1"))
    if before.cpuset and not now.cpuset:
        lifts.append(("cpuset", "cpuset.cpus", INHERIT))
    if before.pids and not now.pids:
        lifts.append(("pids", "pids.max", "max"))
    if before.blkio_weight and not now.blkio_weight:
        lifts.append(("blkio", "blkio.bfq.weight", "100"))
    if before.cpu_rt_runtime and not now.cpu_rt_runtime:
        lifts.append(("cpu", "cpu.rt_runtime_us", "0"))
    return lifts


def _v2_lifts(before: Resources, now: Resources) -> list[tuple[str, str, str]]:
    lifts = []
    if before.memory and not now.memory:
        lifts.append(("memory", "memory.max", "max"))
        lifts.append(("memory", "memory.swap.max", "max"))
    if before.memory_reservation and not now.memory_reservation:
        lifts.append(("memory", "memory.low", "0"))
    if before.cpu_shares and not now.cpu_shares:
        lifts.append(("cpu", "cpu.weight", "100"))
    if _quota(before) and not _quota(now):
        lifts.append(("cpu", "cpu.max", f"max {_PERIOD}"))
    if before.cpuset and not now.cpuset:
        lifts.append(("cpuset", "cpuset.cpus", "\n"))
    if before.pids and not now.pids:
        lifts.append(("pids", "pids.max", "max"))
    if before.blkio_weight and not now.blkio_weight:
        lifts.append(("io", "io.weight", "default 100"))
    return lifts


def _io_changes(before: Resources, now: Resources) -> list[tuple[str, str, int | None]]:
    """(path, what, value) of every limit of a device that is set, or lifted (None)."""
    old, new = _by_device(before.io), _by_device(now.io)
    keys = [*new, *(key for key in old if key not in new)]
    return [(path, what, new.get((path, what))) for path, what in keys]


def _by_device(limits: tuple[IoLimit, ...]) -> dict[tuple[str, str], int]:
    return {
        (limit.path, what): value
        for limit in limits
        for what in ("weight", *_V1_THROTTLES)
        if (value := getattr(limit, what))
    }


def _io_weight(weight: int) -> int:
    return 1 + (weight - 10) * 9999 // 990


def _swap(resources: Resources) -> int | None:
    """Memory plus swap in bytes; Docker allows as much swap again where nothing is said."""
    if resources.memory_swap:
        return resources.memory_swap
    return resources.memory * 2 if resources.memory else None
