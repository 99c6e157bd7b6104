"""Limits as file contents, and where control groups are mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.cgroups.limits import INHERIT, device_number, v1_files, v2_files
from runtime.cgroups.manager import read_hierarchies, read_pairs, remove_directory, write
from runtime.container.config import IoLimit, Resources
from runtime.errors import RuntimeFault

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("resources", "v1", "v2"),
    [
        (Resources(), [], []),
        (
            Resources(memory=64 * MIB),
            [
                ("memory", "memory.limit_in_bytes", str(64 * MIB)),
                ("memory", "memory.memsw.limit_in_bytes", str(128 * MIB)),
            ],
            [
                ("memory", "memory.max", str(64 * MIB)),
                ("memory", "memory.swap.max", str(64 * MIB)),
            ],
        ),
        (
            Resources(memory=64 * MIB, memory_swap=64 * MIB),
            [
                ("memory", "memory.limit_in_bytes", str(64 * MIB)),
                ("memory", "memory.memsw.limit_in_bytes", str(64 * MIB)),
            ],
            [("memory", "memory.max", str(64 * MIB)), ("memory", "memory.swap.max", "0")],
        ),
        (
            Resources(memory=64 * MIB, memory_swap=-1),
            [
                ("memory", "memory.limit_in_bytes", str(64 * MIB)),
                ("memory", "memory.memsw.limit_in_bytes", "-1"),
            ],
            [("memory", "memory.max", str(64 * MIB)), ("memory", "memory.swap.max", "max")],
        ),
        (
            Resources(memory_reservation=MIB, memory_swappiness=0, oom_kill_disable=True),
            [
                ("memory", "memory.soft_limit_in_bytes", str(MIB)),
                ("memory", "memory.swappiness", "0"),
                ("memory", "memory.oom_control", "1"),
            ],
            [("memory", "memory.low", str(MIB))],
        ),
        (
            Resources(cpus=1.5),
            [("cpu", "cpu.cfs_period_us", "100000"), ("cpu", "cpu.cfs_quota_us", "150000")],
            [("cpu", "cpu.max", "150000 100000")],
        ),
        (
            Resources(cpus=0.5, cpu_period=50_000),
            [("cpu", "cpu.cfs_period_us", "50000"), ("cpu", "cpu.cfs_quota_us", "25000")],
            [("cpu", "cpu.max", "25000 50000")],
        ),
        (
            Resources(cpu_quota=-1),
            [("cpu", "cpu.cfs_period_us", "100000"), ("cpu", "cpu.cfs_quota_us", "-1")],
            [("cpu", "cpu.max", "max 100000")],
        ),
        (
            Resources(cpu_shares=2, cpuset="0-1", pids=10, blkio_weight=10),
            [
                ("cpu", "cpu.shares", "2"),
                ("cpuset", "cpuset.cpus", "0-1"),
                ("pids", "pids.max", "10"),
                ("blkio", "blkio.bfq.weight", "10"),
            ],
            [
                ("cpu", "cpu.weight", "1"),
                ("cpuset", "cpuset.cpus", "0-1"),
                ("pids", "pids.max", "10"),
                ("io", "io.weight", "default 1"),
            ],
        ),
        (
            Resources(cpu_shares=262144, pids=-1, blkio_weight=1000),
            [
                ("cpu", "cpu.shares", "262144"),
                ("pids", "pids.max", "max"),
                ("blkio", "blkio.bfq.weight", "1000"),
            ],
            [
                ("cpu", "cpu.weight", "10000"),
                ("pids", "pids.max", "max"),
                ("io", "io.weight", "default 10000"),
            ],
        ),
    ],
)
def test_limits_are_written_as_each_version_wants_them(
    resources: Resources, v1: list[tuple[str, str, str]], v2: list[tuple[str, str, str]]
) -> None:
    assert v1_files(resources) == v1
    assert v2_files(resources) == v2


DISK = IoLimit(path="/dev/disk", weight=1000, read_bps=1000, write_iops=5)


def number(path: str) -> str:
    assert path == "/dev/disk"
    return "254:0"


def test_limits_of_devices_are_written_by_their_numbers() -> None:
    limited = Resources(io=(DISK,))
    assert v1_files(limited, number=number) == [
        ("blkio", "blkio.bfq.weight_device", "254:0 1000"),
        ("blkio", "blkio.throttle.read_bps_device", "254:0 1000"),
        ("blkio", "blkio.throttle.write_iops_device", "254:0 5"),
    ]
    assert v2_files(limited, number=number) == [
        ("io", "io.weight", "254:0 10000"),
        ("io", "io.max", "254:0 rbps=1000"),
        ("io", "io.max", "254:0 wiops=5"),
    ]


def test_what_is_no_limit_any_more_is_lifted() -> None:
    before = Resources(
        memory=MIB,
        memory_reservation=MIB,
        memory_swappiness=3,
        cpus=1.0,
        cpu_shares=10,
        cpuset="0",
        pids=5,
        blkio_weight=10,
        io=(DISK,),
    )
    kept = Resources(io=(IoLimit(path="/dev/disk", weight=1000),))
    assert v1_files(kept, before, number) == [
        ("memory", "memory.memsw.limit_in_bytes", "-1"),
        ("memory", "memory.limit_in_bytes", "-1"),
        ("memory", "memory.soft_limit_in_bytes", "-1"),
        ("memory", "memory.swappiness", INHERIT),
        ("cpu", "cpu.shares", "1024"),
        ("cpu", "cpu.cfs_quota_us", "-1"),
        ("cpuset", "cpuset.cpus", INHERIT),
        ("pids", "pids.max", "max"),
        ("blkio", "blkio.bfq.weight", "100"),
        ("blkio", "blkio.bfq.weight_device", "254:0 1000"),
        ("blkio", "blkio.throttle.read_bps_device", "254:0 0"),
        ("blkio", "blkio.throttle.write_iops_device", "254:0 0"),
    ]
    assert v2_files(kept, before, number) == [
        ("memory", "memory.max", "max"),
        ("memory", "memory.swap.max", "max"),
        ("memory", "memory.low", "0"),
        ("cpu", "cpu.weight", "100"),
        ("cpu", "cpu.max", "max 100000"),
        ("cpuset", "cpuset.cpus", "\n"),
        ("pids", "pids.max", "max"),
        ("io", "io.weight", "default 100"),
        ("io", "io.weight", "254:0 10000"),
        ("io", "io.max", "254:0 rbps=max"),
        ("io", "io.max", "254:0 wiops=max"),
    ]
    assert v1_files(before, before, number) == v1_files(before, number=number)


def test_what_is_no_block_device_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFault, match="it is none"):
        device_number("/dev/null")
    with pytest.raises(RuntimeFault, match="no such file"):
        device_number(str(tmp_path / "absent"))


def test_real_time_is_refused_where_there_is_none() -> None:
    with pytest.raises(RuntimeFault, match="no part for real-time"):
        v2_files(Resources(cpu_rt_runtime=1000))
    assert v1_files(Resources(cpu_rt_runtime=1000)) == [
        ("cpu", "cpu.rt_period_us", "1000000"),
        ("cpu", "cpu.rt_runtime_us", "1000"),
    ]


MIXED = """\
24 1 0:22 / /sys rw,nosuid - sysfs sysfs rw
31 24 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory,release_agent=/run/cpu
36 31 0:33 / /other/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""


def test_hierarchies_are_found_by_controller() -> None:
    found = read_hierarchies(MIXED)
    both = Path("/sys/fs/cgroup/cpu,cpuacct")
    assert found.v1 == {
        "cpu": both,
        "cpuacct": both,
        "memory": Path("/sys/fs/cgroup/memory"),
        "name=systemd": Path("/sys/fs/cgroup/systemd"),
    }
    assert found.unified == Path("/sys/fs/cgroup/unified")


def test_a_host_may_have_only_one_version_or_none() -> None:
    line = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
    only_v2 = read_hierarchies(line)
    assert only_v2.v1 == {} and only_v2.unified == Path("/sys/fs/cgroup")
    nothing = read_hierarchies("24 1 0:22 / /sys rw - sysfs sysfs rw\n")
    assert nothing.v1 == {} and nothing.unified is None


def test_pairs_are_read_and_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "memory.stat"
    file.write_text("anon 12\nfile 0\nodd x\n8:0 Read 5\n")
    assert read_pairs(file) == {"anon": 12, "file": 0, "8:0 Read": 5}


def test_a_refused_limit_names_file_value_and_reason(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFault, match=r"set pids\.max to 7: no such file or directory"):
        write(tmp_path / "pids.max", "7")


def test_removing_what_is_not_there_is_done_already(tmp_path: Path) -> None:
    remove_directory(tmp_path / "absent")
    (tmp_path / "busy" / "x").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty"):
        remove_directory(tmp_path / "busy", tries=2)
