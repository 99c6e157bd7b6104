"""Containers of one group share a process that keeps them, and do not concern each other."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Any

import pytest

from runtime.container import ending
from runtime.container.keepers import CAPACITY
from runtime.container.monitor import Monitor
from runtime.container.record import read_exit
from runtime.container.sessions import open_attach
from runtime.errors import ContainerStartError
from runtime.linux import process, sockets
from tests.integration.runtime.keeping import begin, keeping, turn_until
from tests.integration.runtime.yard import Yard, until


def start(yard: Yard, *argv: str, group: str = "shop", **settings: Any) -> str:
    return yard.start(*(argv or ("sleep", "1000")), group=group, **settings)


def test_a_group_shares_keepers_of_so_many_containers_each(yard: Yard) -> None:
    ids = [start(yard) for _ in range(CAPACITY + 1)]
    keepers = [yard.monitor_pid(id) for id in ids]
    assert len(set(keepers[:CAPACITY])) == 1
    assert keepers[CAPACITY] != keepers[0]
    assert yard.monitor_pid(start(yard, group="other")) not in keepers
    assert yard.monitor_pid(start(yard, group="")) not in keepers


def test_a_place_that_is_free_again_is_taken(yard: Yard) -> None:
    ids = [start(yard) for _ in range(CAPACITY)]
    yard.kill(ids[0])
    until(
        lambda: yard.monitor_pid(start(yard, "true")) == yard.monitor_pid(ids[1]),
        what="the keeper that has room gets a container",
    )


def test_a_keeper_ends_with_its_last_container(yard: Yard) -> None:
    ids = [start(yard) for _ in range(2)]
    keeper = yard.monitor_pid(ids[0])
    yard.kill(ids[0])
    assert yard.exec(ids[1], "true").exit_code == 0
    yard.kill(ids[1])
    until(lambda: process.start_time(keeper) is None, what="the keeper ends")
    assert yard.containers.get(start(yard)).status == "running"


def test_a_keeper_goes_on_without_the_launcher_and_ends_with_its_last_container(
    yard: Yard,
) -> None:
    first = start(yard)
    launcher, keeper = yard.launcher_pid(), yard.monitor_pid(first)
    os.kill(launcher, signal.SIGKILL)
    until(lambda: process.start_time(launcher) is None, what="the launcher is gone")
    second = start(yard)
    assert yard.monitor_pid(second) != keeper
    assert yard.kill(first).exit_code == 137
    until(lambda: process.start_time(keeper) is None, what="the keeper ends")
    assert yard.exec(second, "true").exit_code == 0


def test_a_killed_keeper_takes_its_own_containers_with_it_and_no_others(yard: Yard) -> None:
    ids = [start(yard) for _ in range(CAPACITY + 1)]
    os.kill(yard.monitor_pid(ids[0]), signal.SIGKILL)
    until(
        lambda: all(yard.containers.get(id).status == "exited" for id in ids[:CAPACITY]),
        what="its containers are known to be lost",
    )
    assert sorted(yard.containers.sweep()) == sorted(ids[:CAPACITY])
    assert yard.exec(ids[CAPACITY], "true").exit_code == 0
    again = start(yard)
    assert yard.exec(again, "true").exit_code == 0


def test_a_start_that_fails_leaves_the_others_alone(yard: Yard) -> None:
    first = start(yard)
    for _ in range(3):
        with pytest.raises(ContainerStartError):
            start(yard, "no-such-command")
    second = start(yard)
    assert yard.monitor_pid(first) == yard.monitor_pid(second)
    assert yard.exec(first, "true").exit_code == 0


def test_nobody_gets_a_descriptor_of_another_container(yard: Yard) -> None:
    for _ in range(3):
        start(yard, stdin_open=True)
        start(yard, tty=True)
    listing = "ls /proc/self/fd"
    id = start(yard, "sh", "-c", f"{listing}; sleep 1000")
    own = ["0", "1", "2", "3"]  # that of the directory is the last one
    assert yard.wait_for_output(id, "3\n").split() == own
    assert yard.exec(id, "sh", "-c", listing).output.split() == own


def test_the_end_of_an_input_is_seen_though_others_start_meanwhile(yard: Yard) -> None:
    id = start(yard, "cat", stdin_open=True)
    session = open_attach(str(yard.containers.monitor_socket(id)), stdin=True)
    others = [start(yard) for _ in range(3)]
    assert session.stdin is not None
    os.write(session.stdin, b"all\n")
    os.close(session.stdin)
    session.stdin = None
    session.end_input()
    assert yard.finish(id).exit_code == 0
    session.close()
    assert yard.log(id) == "all\n"
    assert all(yard.exec(other, "true").exit_code == 0 for other in others)


def test_a_client_that_does_not_read_delays_the_end_of_its_own_container_alone(yard: Yard) -> None:
    talker = start(yard, "sh", "-c", "until [ -e /go ]; do sleep 0.01; done; yes | head -c 300000")
    other = start(yard)
    session = open_attach(str(yard.containers.monitor_socket(talker)), stdin=False, complete=True)
    yard.exec(talker, "touch", "/go")
    assert yard.finish(talker).exit_code == 0
    assert yard.exec(other, "true").exit_code == 0
    assert yard.kill(other).exit_code == 137
    assert session.stdout is not None
    size = 0
    while block := os.read(session.stdout, 65536):
        size += len(block)
    assert size == 300000
    assert session.wait() == 0
    session.close()


def test_many_ends_at_once_are_all_recorded(yard: Yard) -> None:
    ids = [
        start(yard, "sh", "-c", f"trap 'echo bye; exit {number}' TERM; echo up; sleep 1000 & wait")
        for number in range(CAPACITY)
    ]
    for id in ids:
        yard.wait_for_output(id, "up")
    for id in ids:
        yard.containers.signal(id, signal.SIGTERM)
    assert [yard.finish(id).exit_code for id in ids] == list(range(CAPACITY))
    assert all(yard.log(id) == "up\nbye\n" for id in ids)


def test_an_exit_is_recorded_though_the_child_that_does_it_is_killed(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with keeping(yard) as keeper:
        id = begin(keeper, yard)
        monkeypatch.setattr(ending, "_finish", killed)
        yard.containers.signal(id, signal.SIGTERM)
        yard.containers.signal(id, signal.SIGKILL)
        exit = yard.instance.container(id).exit
        turn_until(keeper, exit.exists)
        record = read_exit(exit)
        assert record is not None and record.exit_code == 137
        assert not yard.instance.container(id).run_directory.exists()
        assert yard.containers.processes(id) == []


def test_a_fault_of_ours_ends_the_container_that_it_is_about_and_is_told(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def faulty(self: Monitor, _fd: int) -> None:
        raise ZeroDivisionError("a fault")

    with keeping(yard) as keeper:
        well = begin(keeper, yard)
        with monkeypatch.context() as patched:
            patched.setattr(Monitor, "_on_connect", faulty)
            ill = begin(keeper, yard)
        with sockets.connect(str(yard.containers.monitor_socket(ill))):
            turn_until(keeper, yard.instance.container(ill).exit.exists)
        state = yard.containers.get(ill)
        assert (state.status, state.exit_code) == ("exited", 137)
        assert state.error is not None and "a fault" in state.error
        assert yard.containers.get(well).status == "running"
        assert "ZeroDivisionError" in capsys.readouterr().err
        watch = yard.containers.watch(well)
        yard.containers.signal(well, signal.SIGKILL)
        turn_until(keeper, lambda: select.select([watch], [], [], 0)[0])
        assert yard.containers.get(well).exit_code == 137
        watch.close()


def test_what_is_left_of_an_ended_container_is_nothing_in_its_keeper(yard: Yard) -> None:
    pids = {yard.containers.get(start(yard)).pid for _ in range(2)}
    keeper = yard.monitor_pid(start(yard))

    def children() -> set[int]:
        text = Path(f"/proc/{keeper}/task/{keeper}/children").read_text()
        return {int(pid) for pid in text.split()}

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{keeper}/fd"))

    before = None
    for _ in range(10):
        for state in yard.containers.list():
            if state.status == "running" and state.pid not in pids:
                yard.kill(state.id)
        until(lambda: children() == pids, what="nothing but the others is left")
        before = before or descriptors()
        assert descriptors() == before
        yard.exec(start(yard, tty=True), "true")
