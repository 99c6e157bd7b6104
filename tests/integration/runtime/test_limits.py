"""Limits: that the kernel has them, and that it acts on them."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.cgroups.devices import DEFAULT_RULES
from runtime.cgroups.manager import hierarchies
from runtime.cgroups.v2 import CgroupV2
from runtime.container.config import IoLimit, Resources, Ulimit
from runtime.errors import ContainerStartError, InvalidState, RuntimeFault
from runtime.linux import mounts, namespaces, process
from tests.integration.runtime.yard import Yard, needs, until


def _setting(yard: Yard, id: str, v1: tuple[str, str], v2: str) -> str:
    """The content of a control file of the container, whichever version this host has."""
    found = hierarchies()
    if v1[0] in found.v1:
        path = found.v1[v1[0]] / yard.instance.tag / id / v1[1]
    else:
        assert found.unified is not None
        path = found.unified / yard.instance.tag / id / v2
    return path.read_text().strip()


def test_too_much_memory_is_reported_as_such(yard: Yard) -> None:
    script = "dd if=/dev/zero of=/dev/null bs=64M count=1; exit 0"
    limits = Resources(memory=16 * 1024 * 1024, memory_swap=16 * 1024 * 1024)
    id = yard.start("sh", "-c", f"exec {script.partition(';')[0]}", resources=limits)
    state = yard.finish(id)
    assert (state.exit_code, state.oom_killed) == (137, True)
    id = yard.start("sh", "-c", script, resources=limits)
    assert yard.finish(id).oom_killed
    assert not yard.containers.get(yard_run(yard, "true", limits)).oom_killed


def yard_run(yard: Yard, command: str, limits: Resources) -> str:
    id = yard.start(command, resources=limits)
    yard.finish(id)
    return id


def test_a_small_limit_still_lets_a_container_and_execs_start(yard: Yard) -> None:
    limits = Resources(memory=6 * 1024 * 1024, pids=4)
    id = yard.start("sleep", "1000", resources=limits)
    assert yard.exec(id, "true").exit_code == 0
    assert not yard.containers.get(id).oom_killed


def test_the_number_of_processes_is_limited(yard: Yard) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done 2>&1; wait"
    run = yard.start("sh", "-c", script, resources=Resources(pids=5))
    assert "can't fork" in yard.wait_for_output(run, "fork")
    assert len(yard.containers.processes(run)) <= 5


def test_limits_are_written_and_can_be_changed_while_it_runs(yard: Yard) -> None:
    first = Resources(memory=64 << 20, cpus=0.5, cpu_shares=512, pids=50)
    id = yard.start("sleep", "1000", resources=first)
    assert _setting(yard, id, ("memory", "memory.limit_in_bytes"), "memory.max") == str(64 << 20)
    assert _setting(yard, id, ("pids", "pids.max"), "pids.max") == "50"
    assert _setting(yard, id, ("cpu", "cpu.cfs_quota_us"), "cpu.max").split()[0] == "50000"
    assert _setting(yard, id, ("cpu", "cpu.shares"), "cpu.weight") in ("512", "20")
    for memory in (256 << 20, 32 << 20):
        config = yard.containers.config(id)
        changed = config.replace(resources=Resources(memory=memory, pids=60), labels={"a": "b"})
        yard.containers.update(id, changed)
        text = _setting(yard, id, ("memory", "memory.limit_in_bytes"), "memory.max")
        assert text == str(memory)
    assert yard.containers.config(id).labels == {"a": "b"}
    assert _setting(yard, id, ("pids", "pids.max"), "pids.max") == "60"


def _disk() -> tuple[str, str]:
    """Path and number of a block device of this host."""
    for entry in sorted(Path("/sys/block").iterdir()):
        path = Path("/dev") / entry.name
        if path.is_block_device() and int((entry / "size").read_text()):
            return str(path), (entry / "dev").read_text().strip()
    pytest.skip("this host has no block device")


def test_a_device_s_limits_are_set_and_lifted_while_it_runs(yard: Yard) -> None:
    path, number = _disk()
    slow = Resources(io=(IoLimit(path=path, read_bps=1 << 20, write_iops=10),))
    id = yard.start("sleep", "1000", resources=slow)

    def read_bps() -> str:
        return _setting(yard, id, ("blkio", "blkio.throttle.read_bps_device"), "io.max")

    assert number in read_bps() and str(1 << 20) in read_bps()
    faster = Resources(io=(IoLimit(path=path, read_bps=2 << 20),))
    yard.containers.update(id, yard.containers.config(id).replace(resources=faster))
    assert str(2 << 20) in read_bps()
    assert "10" not in _setting(
        yard, id, ("blkio", "blkio.throttle.write_iops_device"), "io.max"
    ).replace(number, "").replace(str(2 << 20), "")
    yard.containers.update(id, yard.containers.config(id).replace(resources=Resources()))
    assert read_bps() == ""
    bad = yard.create("true", resources=Resources(io=(IoLimit(path="/dev/null", read_bps=1),)))
    with pytest.raises(RuntimeFault, match="limit the block device /dev/null: it is none"):
        yard.containers.start(bad)


def test_limits_that_are_taken_away_leave_what_the_kernel_had(yard: Yard) -> None:
    id = yard.start("sleep", "1000")
    settings = (
        (("memory", "memory.limit_in_bytes"), "memory.max"),
        (("memory", "memory.soft_limit_in_bytes"), "memory.low"),
        (("memory", "memory.swappiness"), "memory.low"),
        (("cpu", "cpu.shares"), "cpu.weight"),
        (("pids", "pids.max"), "pids.max"),
    )

    def now() -> list[str]:
        return [_setting(yard, id, v1, v2) for v1, v2 in settings]

    free = now()
    limits = Resources(
        memory=64 << 20,
        memory_reservation=32 << 20,
        memory_swappiness=1 if "memory" in hierarchies().v1 else None,
        cpu_shares=512,
        pids=50,
    )
    yard.containers.update(id, yard.containers.config(id).replace(resources=limits))
    assert all(limited != was for limited, was in zip(now(), free, strict=True))
    yard.containers.update(id, yard.containers.config(id).replace(resources=Resources()))
    assert now() == free


def test_real_time_processes_have_the_part_that_they_are_given(yard: Yard) -> None:
    root = hierarchies().v1.get("cpu")
    if root is None or not (root / "cpu.rt_runtime_us").exists():
        pytest.skip("this kernel has no real-time scheduling by groups")
    ids = [
        yard.start("sleep", "1000", resources=Resources(cpu_rt_runtime=runtime))
        for runtime in (1000, 2000)
    ]
    parts = [(root / yard.instance.tag / id / "cpu.rt_runtime_us").read_text() for id in ids]
    assert parts == ["1000\n", "2000\n"]
    yard.containers.update(ids[0], yard.containers.config(ids[0]).replace(resources=Resources()))
    assert (root / yard.instance.tag / ids[0] / "cpu.rt_runtime_us").read_text() == "0\n"


def test_a_limit_that_the_kernel_refuses_is_named(yard: Yard) -> None:
    id = yard.create("true", resources=Resources(cpuset="9999"))
    with pytest.raises(RuntimeFault, match=r"set cpuset.cpus to 9999: |no cpuset controller"):
        yard.containers.start(id)
    assert yard.containers.get(id).status == "created"


def test_a_cpuset_binds_to_its_cpus(yard: Yard) -> None:
    run = yard.sh("grep Cpus_allowed_list /proc/self/status", resources=Resources(cpuset="0"))
    assert run.output.split()[1] == "0"


def test_usage_counts_what_runs(yard: Yard) -> None:
    id = yard.start("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000")
    until(lambda: yard.containers.usage(id).cpu > 1_000_000, what="CPU time is counted")
    usage = yard.containers.usage(id)
    assert usage.tasks >= 1 and usage.memory > 0 and usage.memory_limit is None
    yard.kill(id)
    with pytest.raises(InvalidState):
        yard.containers.usage(id)


def test_ulimits_are_set(shared: Yard) -> None:
    ulimits = (Ulimit(name="nofile", soft=50, hard=60), Ulimit(name="core", soft=0, hard=0))
    run = shared.sh("ulimit -n; ulimit -Hn; ulimit -c", ulimits=ulimits)
    assert run.output.split() == ["50", "60", "0"]
    with pytest.raises(RuntimeFault, match="unknown ulimit odd"):
        shared.start("true", ulimits=(Ulimit(name="odd", soft=1, hard=1),))
    with pytest.raises(ContainerStartError, match="set ulimit nofile: invalid argument"):
        shared.start("true", ulimits=(Ulimit(name="nofile", soft=2, hard=1),))


def test_shared_memory_has_its_size(shared: Yard) -> None:
    run = shared.sh("df -k /dev/shm | tail -n 1", shm_size=3 * 1024 * 1024)
    assert run.output.split()[1] == "3072"


def test_the_oom_score_is_the_container_s(shared: Yard) -> None:
    assert shared.run("cat", "/proc/self/oom_score_adj", oom_score_adj=500).output == "500\n"
    assert shared.run("cat", "/proc/self/oom_score_adj").output == "0\n"


def test_settings_of_its_own_namespaces_are_set(yard: Yard, tmp_path: Path) -> None:
    netns = tmp_path / "netns"
    netns.touch()
    _in_a_thread(lambda: _make_netns(netns))
    try:
        run = yard.sh(
            "cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmax net/ipv4/ping_group_range"
            " net/ipv4/ip_unprivileged_port_start",
            netns=str(netns),
            sysctls={"net.ipv4.ip_forward": "1", "kernel.shmmax": "123456"},
        )
        assert run.output.split() == ["1", "123456", "0", "2147483647", "0"]
        with pytest.raises(ContainerStartError, match=r"sysctl net\.nothing: no such file"):
            yard.start("true", netns=str(netns), sysctls={"net.nothing": "1"})
    finally:
        mounts.unmount(str(netns))


def _make_netns(place: Path) -> None:
    namespaces.unshare(namespaces.CLONE_NEWNET)
    mounts.bind("/proc/thread-self/ns/net", str(place))


def _in_a_thread(body: Callable[[], None]) -> None:
    """Namespaces are a thread's own: what `body` leaves does not come back."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            body()
        except BaseException as error:  # raised again below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


# --- namespaces -----------------------------------------------------------------------------


def test_names_are_its_own_or_the_host_s(shared: Yard) -> None:
    run = shared.sh("hostname; cat /proc/sys/kernel/domainname", hostname="box", domainname="yard")
    assert run.output.split() == ["box", "yard"]
    assert shared.run("hostname", uts_namespace="host").output.strip() == socket.gethostname()


def test_the_host_s_processes_and_ipc_can_be_shared(yard: Yard) -> None:
    run = yard.sh("readlink /proc/self/ns/ipc; mount | grep -c ' /dev/shm '", ipc_namespace="host")
    assert run.output.split() == [os.readlink("/proc/self/ns/ipc"), "1"]
    id = yard.start("sh", "-c", "echo $$; sleep 1000 & sleep 1000", pid_namespace="host")
    pid = yard.containers.get(id).pid
    assert yard.wait_for_output(id, "\n").strip() == str(pid)
    others = set(yard.containers.processes(id))
    assert yard.exec(id, "test", "-e", f"/proc/{os.getpid()}").exit_code == 0
    yard.containers.delete(id, force=True)
    until(lambda: not any(map(process.start_time, others)), what="nothing of it runs")


def test_namespaces_of_another_container_can_be_joined(yard: Yard) -> None:
    first = yard.start("sleep", "1000", hostname="first")
    pid = yard.containers.get(first).pid
    run = yard.sh(
        "ps -o comm | grep -c '^sleep'; readlink /proc/self/ns/ipc",
        pid_namespace=f"/proc/{pid}/ns/pid",
        ipc_namespace=f"/proc/{pid}/ns/ipc",
    )
    assert run.output.split() == ["1", os.readlink(f"/proc/{pid}/ns/ipc")]
    assert yard.containers.get(first).status == "running"


def test_namespaces_of_a_container_are_looked_up_at_each_start(yard: Yard) -> None:
    first = yard.start("sleep", "1000")
    shared = f"container:{first}"
    second = yard.create(
        "sh",
        "-c",
        "ps -o comm | grep -c '^sleep'; readlink /proc/self/ns/ipc",
        pid_namespace=shared,
        ipc_namespace=shared,
    )
    for _ in range(2):
        yard.containers.start(second)
        assert yard.finish(second).exit_code == 0
        pid = yard.containers.get(first).pid
        assert yard.log(second).split()[-2:] == ["1", os.readlink(f"/proc/{pid}/ns/ipc")]
        yard.kill(first)
        with pytest.raises(RuntimeFault, match="does not run"):
            yard.containers.start(second)
        yard.containers.start(first)
    for other in ("container:absent", "container:../x"):
        with pytest.raises(RuntimeFault, match="does not run"):
            yard.start("true", pid_namespace=other)


def test_a_network_of_its_own_has_only_what_is_in_it(yard: Yard, tmp_path: Path) -> None:
    netns = tmp_path / "netns"
    netns.touch()
    _in_a_thread(lambda: _make_netns(netns))
    try:
        id = yard.start("sleep", "1000", netns=str(netns))
        run = yard.exec(id, "cat", "/proc/net/dev")
        assert [line.split(":")[0].strip() for line in run.output.splitlines()[2:]] == ["lo"]
        yard.kill(id)
    finally:
        mounts.unmount(str(netns))
    with pytest.raises(ContainerStartError, match="enter the namespaces"):
        yard.start("true", netns=str(netns))


def test_the_control_groups_inside_begin_at_the_container_s_own(yard: Yard) -> None:
    run = yard.sh("cat /proc/self/cgroup | cut -d: -f3 | sort -u; ls /sys/fs/cgroup/memory/")
    assert "/" in run.output.split()
    assert yard.instance.tag not in run.output


def test_the_group_can_lie_below_another_one(yard: Yard) -> None:
    parent = f"{yard.instance.tag}-above/inner"
    id = yard.start("sleep", "1000", cgroup_parent=f"/{parent}", resources=Resources(pids=9))
    pid = yard.containers.get(id).pid
    groups = Path(f"/proc/{pid}/cgroup").read_text()
    assert f"/{parent}/{yard.instance.tag}-{id}\n" in groups
    assert yard.exec(id, "true").exit_code == 0
    assert yard.containers.processes(id) == [pid]
    yard.containers.pause(id, True)
    yard.containers.delete(id, force=True)
    found = hierarchies()
    for root in {*found.v1.values(), *([found.unified] if found.unified else [])}:
        if (root / parent).exists():
            assert [entry for entry in (root / parent).iterdir() if entry.is_dir()] == []
            (root / parent).rmdir()
            (root / parent).parent.rmdir()


@pytest.mark.parametrize("parent", ["../x", "a/../b", "/", "", "a//b", "a b", "x\n", ".", "a/.."])
def test_a_parent_group_cannot_lead_elsewhere(shared: Yard, parent: str) -> None:
    with pytest.raises(RuntimeFault, match="cgroup parent"):
        shared.create("true", cgroup_parent=parent)


# --- the v2 program on devices --------------------------------------------------------------


def test_the_v2_program_decides_which_devices_are_used(yard: Yard, tmp_path: Path) -> None:
    unified = hierarchies().unified
    if unified is None:
        pytest.skip("no v2 tree is mounted")
    group = CgroupV2(unified, yard.instance.tag, "devices")
    try:
        group.create(Resources(), DEFAULT_RULES)
        mine, other = tmp_path / "mine", tmp_path / "other"
        os.mknod(mine, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(other, stat.S_IFCHR | 0o666, os.makedev(1, 11))  # kmsg
        fd = group.open()
        assert fd is not None
        outcomes: list[int] = []
        for node in (mine, other):
            outcomes.append(_opens_in(fd, node))
        os.close(fd)
        assert outcomes == [0, 1]
    finally:
        group.remove()
        (unified / yard.instance.tag).rmdir()


def _opens_in(group: int, node: Path) -> int:
    """0 where a process in `group` may read and write `node`, else 1."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reading, 1)
        try:
            os.open(node, os.O_RDWR)
        except PermissionError:
            os._exit(1)
        os._exit(0)
    procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=group)
    os.write(procs, str(pid).encode())
    os.close(procs)
    os.write(writing, b"x")
    os.close(reading)
    os.close(writing)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_freezing_and_killing_work_in_v2_alone(yard: Yard) -> None:
    unified = hierarchies().unified
    needs((unified is not None, "no v2 tree is mounted"))
    assert unified is not None
    group = CgroupV2(unified, yard.instance.tag, "life")
    group.create(Resources(), ())
    fd = group.open()
    assert fd is not None
    pid = os.fork()
    if pid == 0:
        import signal

        signal.pause()
        os._exit(0)
    try:
        procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=fd)
        os.write(procs, str(pid).encode())
        os.close(procs)
        assert group.processes() == [pid]
        group.freeze(True)
        assert group.frozen()
        group.freeze(False)
        assert not group.frozen()
        group.kill()
    finally:
        os.waitpid(pid, 0)
        os.close(fd)
        group.remove()
        (unified / yard.instance.tag).rmdir()
    assert group.processes() == []
