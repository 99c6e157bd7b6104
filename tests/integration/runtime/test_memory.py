"""What a monitor holds alone for as long as its container runs."""

from __future__ import annotations

from tests.integration.runtime.yard import Yard


def _own(pid: int) -> int:
    """KiB that the process shares with nobody (proc(5), smaps_rollup)."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


def test_a_monitor_holds_little_memory_alone(yard: Yard) -> None:
    ids = [yard.start("sleep", "1000") for _ in range(3)]
    for id in ids:
        yard.exec(id, "true")
    assert max(_own(yard.monitor_pid(id)) for id in ids) < 2048


def test_execs_leave_no_memory_behind(yard: Yard) -> None:
    id = yard.start("sleep", "1000")
    monitor = yard.monitor_pid(id)

    def run(times: int) -> int:
        for _ in range(times):
            assert yard.exec(id, "true").exit_code == 0
        return _own(monitor)

    before = run(200)
    assert run(400) - before < 16
