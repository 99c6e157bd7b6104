"""What a limit is called in each version: pure tables from Resources to file contents.

Sources: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the kernel; the weight
conversions are those of the OCI runtimes.
"""

from __future__ import annotations

from runtime.container.config import Resources

_PERIOD = 100_000


def _quota(resources: Resources) -> tuple[int, int] | None:
    """CPU time and period in µs, None where nothing limits."""
    period = resources.cpu_period or _PERIOD
    if resources.cpus:
        return int(resources.cpus * period), period
    if resources.cpu_quota:
        return resources.cpu_quota, period
    return None


def v1_files(resources: Resources) -> list[tuple[str, str, str]]:
    """(controller, file, content) in the order in which they must be written."""
    writes: list[tuple[str, str, str]] = []
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
    return writes


def v2_files(resources: Resources) -> list[tuple[str, str, str]]:
    """(controller, file, content), as `v1_files`."""
    writes: list[tuple[str, str, str]] = []
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
        weight = 1 + (resources.blkio_weight - 10) * 9999 // 990
        writes.append(("io", "io.weight", f"default {weight}"))
    return writes


def _swap(resources: Resources) -> int | None:
    """Memory plus swap in bytes; Docker allows as much swap again where nothing is said."""
    if resources.memory_swap:
        return resources.memory_swap
    return resources.memory * 2 if resources.memory else None
