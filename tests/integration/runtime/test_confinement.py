"""What a program inside must not reach, tried by a program inside."""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from runtime.container.config import ExecConfig, Mount
from runtime.errors import ContainerStartError, RuntimeFault
from runtime.linux import capabilities
from tests.integration.runtime.yard import Yard, needs, until

_DEFAULT = sum(
    1 << capabilities.NUMBERS[name]
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID",
        "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    )
)  # fmt: skip
_STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"


def _status(output: str) -> dict[str, int]:
    pairs = (line.split(":") for line in output.splitlines())
    return {name: int(value, 16) for name, value in pairs}


def _probed(output: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in output.splitlines())}


def _probe_mount(probe: Path) -> tuple[Mount, ...]:
    return (Mount(source=str(probe), target="/probe", read_only=True),)


def test_a_run_has_docker_s_capabilities_and_none_to_inherit(shared: Yard) -> None:
    status = _status(shared.sh(_STATUS).output)
    assert status["CapPrm"] == status["CapEff"] == status["CapBnd"] == _DEFAULT
    assert status["CapInh"] == status["CapAmb"] == 0
    assert status["Seccomp"] == 2 and status["NoNewPrivs"] == 0


def test_an_exec_has_the_same(shared: Yard) -> None:
    id = shared.start("sleep", "1000", no_new_privileges=True)
    run = shared.exec(id, "sh", "-c", _STATUS)
    assert (
        run.output == shared.exec(id, "grep", "-E", _STATUS.split("'")[1], "/proc/1/status").output
    )
    status = _status(run.output)
    assert status["CapPrm"] == status["CapEff"] == status["CapBnd"] == _DEFAULT
    assert status["CapInh"] == status["CapAmb"] == 0
    assert status["Seccomp"] == 2 and status["NoNewPrivs"] == 1
    shared.containers.delete(id, force=True)


def test_a_user_holds_none(shared: Yard) -> None:
    status = _status(shared.sh(_STATUS, user="bob").output)
    assert status["CapPrm"] == status["CapEff"] == status["CapInh"] == status["CapAmb"] == 0
    assert status["CapBnd"] == _DEFAULT
    id = shared.start("sleep", "1000")
    status = _status(shared.exec(id, "sh", "-c", _STATUS, user="bob").output)
    assert status["CapPrm"] == status["CapEff"] == status["CapInh"] == status["CapAmb"] == 0
    shared.containers.delete(id, force=True)


def test_capabilities_can_be_added_and_dropped(shared: Yard) -> None:
    run = shared.sh(_STATUS, cap_add=("NET_ADMIN",), cap_drop=("ALL",))
    assert _status(run.output)["CapEff"] == 1 << capabilities.NUMBERS["NET_ADMIN"]
    run = shared.sh(_STATUS, cap_drop=("CAP_mknod",))
    assert _status(run.output)["CapEff"] == _DEFAULT & ~(1 << capabilities.NUMBERS["MKNOD"])


def test_a_privileged_exec_holds_all_that_the_runtime_has(shared: Yard) -> None:
    id = shared.start("sleep", "1000")
    status = _status(shared.exec(id, "sh", "-c", _STATUS, privileged=True).output)
    assert status["CapEff"] & (1 << capabilities.NUMBERS["SYS_ADMIN"])
    assert status["CapInh"] == status["CapAmb"] == status["Seccomp"] == 0
    shared.containers.delete(id, force=True)


def test_only_three_descriptors_are_open(shared: Yard) -> None:
    # The shell opens the directory itself as one more.
    assert shared.run("ls", "/proc/self/fd").output.split() == ["0", "1", "2", "3"]
    id = shared.start("sleep", "1000", init=True)
    assert shared.exec(id, "ls", "/proc/self/fd").output.split() == ["0", "1", "2", "3"]
    assert shared.exec(id, "ls", "/proc/1/fd").output.split() == ["0", "1", "2"]
    assert shared.exec(id, "ls", "/proc/2/fd").output.split() == ["0", "1", "2"]
    run = shared.exec(id, "ls", "/proc/self/fd", tty=True)
    assert run.output.split() == ["0", "1", "2", "3"]
    shared.containers.delete(id, force=True)


@pytest.mark.parametrize("number", range(3, 20))
def test_a_descriptor_is_no_working_directory(shared: Yard, number: int) -> None:
    for path in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/../.."):
        id = shared.create("pwd", cwd=path)
        with pytest.raises(ContainerStartError):
            shared.containers.start(id)
        shared.containers.delete(id)


def test_nor_is_it_for_an_exec(shared: Yard) -> None:
    id = shared.start("sleep", "1000")
    for number in range(0, 50):
        with pytest.raises(ContainerStartError):
            shared.exec(id, "pwd", cwd=f"/proc/self/fd/{number}")
    for path in ("/proc/1/cwd", "/proc/self/root", "/proc/thread-self/cwd"):
        with pytest.raises(ContainerStartError):
            shared.exec(id, "pwd", cwd=path)
    shared.containers.delete(id, force=True)


def test_masked_paths_are_empty_and_read_only_ones_are_read_only(shared: Yard) -> None:
    script = """
    for path in acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list; do
        path=/proc/$path
        if [ -d $path ]; then [ -z "$(ls -A $path)" ] || echo $path
        elif [ -e $path ]; then [ -z "$(head -c 1 $path)" ] || echo $path; fi
    done
    for path in /sys/firmware /sys/devices/virtual/powercap \
        /sys/devices/system/cpu/cpu*/thermal_throttle; do
        [ -z "$(ls -A $path 2>/dev/null)" ] || echo $path
    done
    for file in sys/kernel/core_pattern sysrq-trigger sys/vm/drop_caches irq/x; do
        (echo 1 > /proc/$file) 2>/dev/null && echo wrote $file
    done
    (echo 1 > /sys/kernel/mm/ksm/run) 2>/dev/null && echo wrote to sys
    find /sys/fs/cgroup -name tasks -exec sh -c 'echo 1 > $1' - {} \\; 2>&1 | grep -vc Read-only
    """
    assert shared.sh(script).output == "0\n"


def test_no_control_group_can_be_mounted_or_given_an_agent(shared: Yard) -> None:
    script = """
    mkdir /tmp/cg; mount -t cgroup -o memory cgroup /tmp/cg 2>&1
    for file in $(find / -name release_agent 2>/dev/null); do
        (echo /bin/sh > $file) 2>&1
    done
    """
    output = shared.sh(script).output
    assert "ermission denied" in output or "not permitted" in output
    for line in output.splitlines():
        assert re.search("Read-only|permitted|enied", line), line


def test_refused_and_allowed_system_calls(shared: Yard, probe: Path) -> None:
    found = _probed(shared.run("/probe/probe", mounts=_probe_mount(probe)).output)
    allowed = ("getpid", "socket_inet", "socket_unix", "personality_linux", "i386_getpid")
    assert {name: found[name] for name in allowed if name in found} == dict.fromkeys(
        [name for name in allowed if name in found], 0
    )
    assert found["clone3"] == errno.ENOSYS
    assert found["unknown"] == errno.ENOSYS
    refused = set(found) - {*allowed, "clone3", "unknown", "tiocsti", "personality_aslr"}
    assert {name: found[name] for name in sorted(refused)} == dict.fromkeys(
        sorted(refused), errno.EPERM
    )
    assert found["tiocsti"] in (errno.ENOTTY, errno.EIO, errno.EPERM)
    assert "killed" not in found


def test_unconfined_has_no_filter(shared: Yard, probe: Path) -> None:
    run = shared.run("/probe/probe", mounts=_probe_mount(probe), seccomp="unconfined")
    found = _probed(run.output.replace("killed 31\n", ""))
    assert found["clone3"] != errno.ENOSYS
    # The session keyring is the container's own, whoever started the runtime.
    assert found["keyctl"] == found["add_key"] == 0
    assert {found["init_module"], found["reboot"]} <= {errno.EPERM, errno.ENOSYS}


def test_the_interpreter_of_the_runtime_cannot_be_overwritten(yard: Yard, probe: Path) -> None:
    """CVE-2019-5736: what is executed is /proc/self/exe, and a loop opens what runs it."""
    interpreter = Path(os.path.realpath(sys.executable))
    before = interpreter.stat()
    mounts = _probe_mount(probe)
    id = yard.start("/probe/probe", "poke", "3", mounts=mounts, cap_add=("SYS_PTRACE",))
    yard.exec(
        id,
        "sh",
        "-c",
        "ln -s /proc/self/exe /bin/me; echo '#!/proc/self/exe' > /bin/she; chmod +x /bin/she",
    )
    for number in range(60):
        for command in ("/proc/self/exe", "me", "she", "true"):
            try:
                yard.exec(id, command, tty=number % 2 == 1)
            except RuntimeFault:
                continue
    assert yard.finish(id).exit_code == 0
    after = interpreter.stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_size) == (
        after.st_ino, after.st_mtime_ns, after.st_size,
    )  # fmt: skip


def test_a_process_on_its_way_in_shows_nothing_of_the_host(yard: Yard, probe: Path) -> None:
    """Even CAP_SYS_PTRACE inside gives no way to the host's root or to open files of it."""
    outside = Path("/outside")
    needs((not outside.exists(), f"{outside} exists on this host"))
    outside.touch()
    try:
        mounts = _probe_mount(probe)
        id = yard.start("/probe/probe", "poke", "3", mounts=mounts, cap_add=("SYS_PTRACE",))
        while yard.containers.get(id).status == "running":
            try:
                yard.exec(id, "true")
            except RuntimeFault:
                break
        yard.finish(id)
        assert yard.log(id) == "rounds 1 found 0\n"
    finally:
        outside.unlink()


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_a_link_in_the_image_in_place_of_a_system_directory_is_refused(
    yard: Yard, tmp_path: Path, name: str
) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    top = tmp_path / "top"
    top.mkdir()
    (top / name).symlink_to(trap)
    id = yard.create("true", layers=(str(yard.layer), str(top)))
    with pytest.raises(ContainerStartError, match=f"at /{name}"):
        yard.containers.start(id)
    assert list(trap.iterdir()) == []


def test_links_in_the_image_never_lead_a_mount_outside(yard: Yard, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    top = tmp_path / "top"
    top.mkdir()
    (top / "absolute").symlink_to(trap)
    (top / "up").symlink_to("../../../../../../.." + str(trap))
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("inside\n")
    for target in ("/absolute/here", "/up/here"):
        id = yard.create(
            "true",
            layers=(str(yard.layer), str(top)),
            mounts=(Mount(source=str(volume), target=target),),
        )
        try:
            yard.containers.start(id)
            yard.finish(id)
        except ContainerStartError:
            pass
        assert list(trap.iterdir()) == []


def test_swapping_a_mount_target_for_a_link_never_leads_outside(yard: Yard, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: one container swaps what another one is mounted over."""
    trap = tmp_path / "trap"
    trap.mkdir()
    volume = tmp_path / "volume"
    volume.mkdir()
    inner = tmp_path / "inner"
    inner.mkdir()
    script = f"""
    cd /vol; mkdir a; ln -s {trap} link; echo ready
    while :; do mv a b; mv link a; mv a link; mv b a; done 2>/dev/null
    """
    share = Mount(source=str(volume), target="/vol")
    swapper = yard.start("sh", "-c", script, mounts=(share,))
    yard.wait_for_output(swapper, "ready")
    outcomes = set()
    before = Path("/proc/self/mountinfo").read_text()
    for number in range(100):
        id = yard.create(
            "true",
            mounts=(share, Mount(source=str(inner), target=f"/vol/a/{'x/' * (number % 2)}y")),
        )
        try:
            yard.containers.start(id)
            yard.finish(id)
            outcomes.add("started")
        except ContainerStartError:
            outcomes.add("refused")
        yard.containers.delete(id)
    assert list(trap.iterdir()) == []
    assert "started" in outcomes
    assert str(trap) not in Path("/proc/self/mountinfo").read_text()
    assert Path("/proc/self/mountinfo").read_text().count(str(tmp_path)) == before.count(
        str(tmp_path)
    )


def test_a_device_swapped_for_another_is_not_used(yard: Yard) -> None:
    """CVE-2025-31133 and CVE-2025-52565: what lies at /dev/null or /dev/pts/ptmx is verified."""
    id = yard.start("sh", "-c", "rm /dev/null; ln -s /etc/passwd /dev/null; echo x; sleep 1000")
    yard.wait_for_output(id, "x")
    with pytest.raises(ContainerStartError, match="/dev/null"):
        yard.exec(id, "true")
    assert yard.exec(id, "true", stdin=b"").exit_code == 0
    yard.exec(id, "sh", "-c", "umount /dev/pts 2>&1; rm -f /dev/pts/ptmx", stdin=b"")
    run = yard.exec(id, "tty", tty=True)
    assert run.output.startswith("/dev/pts/")


def test_a_device_of_the_host_cannot_be_used_though_its_node_can_be_made(yard: Yard) -> None:
    block = next(
        (entry for entry in Path("/sys/block").iterdir() if not entry.name.startswith("loop")), None
    )
    assert block is not None
    major, minor = (block / "dev").read_text().strip().split(":")
    script = f"mknod /tmp/disk b {major} {minor} && head -c 1 /tmp/disk"
    run = yard.sh(script)
    assert run.exit_code != 0
    assert "permitted" in run.output
    id = yard.start("sleep", "1000")
    run = yard.exec(id, "sh", "-c", script)
    assert "permitted" in run.errors and run.output == ""


def test_a_hostile_passwd_neither_blocks_nor_fills_the_memory(yard: Yard, tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    passwd = top / "etc/passwd"
    layers = (str(yard.layer), str(top))
    os.mkfifo(passwd)
    with pytest.raises(RuntimeFault, match="read the users"):
        yard.start("true", layers=layers, user="bob")
    passwd.unlink()
    with passwd.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(RuntimeFault, match="read the users"):
        yard.start("true", layers=layers, user="bob")
    passwd.unlink()
    outside = tmp_path / "outside"
    outside.write_text("eve:x:7:7::/:/bin/sh\n")
    passwd.symlink_to(outside)
    with pytest.raises(RuntimeFault, match="unable to find user eve"):
        yard.start("true", layers=layers, user="eve")


@pytest.mark.parametrize("user", ["4294967296", "-1", "2147483648", "0:-1", "bob:4294967295"])
def test_numbers_out_of_range_are_no_users(yard: Yard, user: str) -> None:
    with pytest.raises(RuntimeFault, match="range"):
        yard.start("true", user=user)


def test_a_name_that_is_a_number_is_a_number(shared: Yard) -> None:
    assert shared.run("id", "-u", user="0").output == "0\n"


def test_supplementary_groups_are_the_image_s_and_what_is_added(shared: Yard) -> None:
    assert shared.run("id", "-G", user="bob").output == "1000 2000\n"
    run = shared.run("id", "-G", user="bob", additional_groups=("extra", "44"))
    assert sorted(run.output.split(), key=int) == ["44", "1000", "2000", "3000"]
    assert shared.run("id", "-G").output.strip() == "0"


def test_settings_of_the_host_are_refused(shared: Yard) -> None:
    for name in (
        "kernel.core_pattern",
        "vm.overcommit_memory",
        "net.ipv4.ip_forward",  # without a network of its own
        "net./../../sysrq-trigger",
        "net/../kernel/core_pattern",
    ):
        with pytest.raises(RuntimeFault, match="not the container's own"):
            shared.start("true", sysctls={name: "1"})


def test_concurrent_execs_and_kills_leave_the_host_alone(yard: Yard) -> None:
    id = yard.start("sleep", "1000")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                with yard.containers.exec(id, ExecConfig(argv=("true",))) as session:
                    assert session.wait() == 0
        except BaseException as error:  # shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    monitor = yard.monitor_pid(id)
    children = Path(f"/proc/{monitor}/task/{monitor}/children")
    until(lambda: len(children.read_text().split()) == 1, what="all are reaped")
