"""Containers that share the namespaces of another one."""

from __future__ import annotations

import os

from runtime.container import mounting
from runtime.linux import mounts
from tests.integration.runtime.yard import Yard, until


def test_a_container_that_shares_an_ipc_namespace_shares_its_memory(yard: Yard) -> None:
    first = yard.start("sh", "-c", "echo hello > /dev/shm/word; sleep 1000", shm_size=1024 * 1024)
    until(lambda: yard.exec(first, "cat", "/dev/shm/word").output, what="the word is there")
    script = "cat /dev/shm/word; echo back > /dev/shm/answer; df -k /dev/shm | tail -1"
    run = yard.sh(script, ipc_namespace=f"container:{first}")
    assert run.exit_code == 0 and run.output.split()[:3] == ["hello", "tmpfs", "1024"]
    assert yard.exec(first, "cat", "/dev/shm/answer").output == "back\n"
    assert yard.sh("ls /dev/shm").output == ""


def test_who_joins_a_pid_namespace_is_first_seen_there_as_itself(yard: Yard) -> None:
    # The watcher notes the root of each process that appears, as one with CAP_SYS_PTRACE can.
    watcher = """
    echo ready
    while [ ! -e /stop ]; do
      for p in /proc/[0-9]*; do [ -e $p/root/etc/hostname ] && echo "$p sees the host"; done
    done
    exit 0
    """
    first = yard.start("sh", "-c", watcher, cap_add=("SYS_PTRACE",))
    yard.wait_for_output(first, "ready")
    for _ in range(10):
        run = yard.sh("echo $$; ls /proc | grep -c '^1$'", pid_namespace=f"container:{first}")
        assert run.output.split()[1] == "1"
    yard.exec(first, "touch", "/stop")
    assert yard.finish(first).exit_code == 0
    assert "sees the host" not in yard.log(first)


def test_a_proc_of_another_pid_namespace_can_be_had_on_older_kernels(yard: Yard) -> None:
    first = yard.start("sleep", "1000")
    pid = yard.containers.get(first).pid
    tree = mounting.proc_from_inside(f"/proc/{pid}/ns/pid", mounts.MOUNT_ATTR_RDONLY)
    try:
        names = os.listdir(f"/proc/self/fd/{tree}")
        assert [name for name in names if name.isdigit()] == ["1"]
        comm = os.open("1/comm", os.O_RDONLY, dir_fd=tree)
        assert os.read(comm, 16) == b"sleep\n"
        os.close(comm)
    finally:
        os.close(tree)
    assert yard.exec(first, "ps", "-o", "pid").exit_code == 0
