"""What goes wrong for one container is no other container's trouble, nor its keeper's."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from runtime.container import init, record
from runtime.container.monitor import Monitor
from runtime.container.record import read_exit
from runtime.container.starting import Starting
from runtime.linux import process, sockets
from tests.integration.runtime.keeping import (
    answer_on,
    ask,
    begin,
    client,
    execute,
    keeping,
    turn_until,
)
from tests.integration.runtime.yard import Yard


def test_a_fault_of_ours_ends_a_container_in_which_a_command_runs(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(self: Monitor, _fd: int) -> None:
        raise ZeroDivisionError("a fault")

    with keeping(yard) as keeper:
        with monkeypatch.context() as patched:
            patched.setattr(Monitor, "_on_connect", faulty)
            ill = begin(keeper, yard)
            patched.undo()
            well = begin(keeper, yard)
            wards = [ward for ward in keeper._wards if isinstance(ward, Monitor)]
            monitor = next(ward for ward in wards if ward.id == ill)
            other = sockets.connect(str(yard.containers.monitor_socket(well)))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        monitor._exec(theirs, {"config": {"argv": ["sleep", "1000"]}})
        assert "started" in answer_on(keeper, ours)
        with sockets.connect(str(yard.containers.monitor_socket(ill))):
            turn_until(keeper, yard.instance.container(ill).exit.exists)
        other.close()
        ours.close()
        assert execute(keeper, yard, well, "true")["exit_code"] == 0


def test_a_failure_with_much_to_say_ends_no_container(yard: Yard) -> None:
    with keeping(yard) as keeper:
        id = begin(keeper, yard)
        answer = execute(keeper, yard, id, "no such command " * 4000)
        assert "file name too long" in answer["error"]["message"]
        assert execute(keeper, yard, id, "true")["exit_code"] == 0
        _id, answer = ask(keeper, yard, "no such command " * 4000)
        assert "file name too long" in answer["error"]["message"]


def test_a_command_whose_forerunner_is_killed_does_not_keep_its_container(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        if process.fork(sibling=True):
            os.kill(os.getpid(), signal.SIGKILL)

    with keeping(yard) as keeper:
        id = begin(keeper, yard)
        monkeypatch.setattr(init, "enter_pid_namespace", killed)
        assert "error" in execute(keeper, yard, id, "sleep", "1000")
        yard.containers.signal(id, signal.SIGKILL)
        turn_until(keeper, yard.instance.container(id).exit.exists)


def test_a_starter_that_is_killed_leaves_no_process(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with keeping(yard) as keeper:
        with monkeypatch.context() as patched:
            patched.setattr("runtime.container.starter.send_kit", killed)
            id, answer = ask(keeper, yard)
        assert "killed" in answer["error"]["message"]
        me = os.getpid()
        children = Path(f"/proc/{me}/task/{me}/children")
        turn_until(keeper, lambda: children.read_text().split() == [])
        assert not yard.instance.container(id).run_directory.exists()


def test_an_exit_that_cannot_be_written_is_written_once_it_can(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeping(yard) as keeper:
        ids = [begin(keeper, yard) for _ in range(2)]
        watches = [yard.containers.watch(id) for id in ids]
        exits = [yard.instance.container(id).exit for id in ids]
        put = record._put

        def put_some(path: Path, what: record.ExitRecord) -> int | None:
            if path == exits[0]:
                raise OSError(errno.ENOSPC, "no space left on device")
            return put(path, what)

        with monkeypatch.context() as patched:
            patched.setattr(record, "_put", put_some)
            for id in ids:
                yard.containers.signal(id, signal.SIGKILL)
            turn_until(keeper, lambda: select.select([watches[1]], [], [], 0)[0])
            assert read_exit(exits[1]) is not None
            turn_until(keeper, lambda: select.select([watches[0]], [], [], 0)[0])
            assert read_exit(exits[0]) is None
        turn_until(keeper, exits[0].exists)
        for watch in watches:
            watch.close()
    assert [yard.containers.get(id).exit_code for id in ids] == [137, 137]


def test_an_end_waits_for_a_process_where_none_is_to_be_had(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks = 0

    def fork(**_: object) -> int:
        nonlocal forks
        forks += 1
        raise BlockingIOError(errno.EAGAIN, "resource temporarily unavailable")

    with keeping(yard) as keeper:
        id, other = begin(keeper, yard), begin(keeper, yard)
        with monkeypatch.context() as patched:
            patched.setattr(process, "fork", fork)
            yard.containers.signal(id, signal.SIGKILL)
            turn_until(keeper, lambda: forks)
            assert "error" in execute(keeper, yard, other, "true")
            _id, answer = ask(keeper, yard)
            assert "temporarily unavailable" in answer["error"]["message"]
        turn_until(keeper, yard.instance.container(id).exit.exists)
        assert execute(keeper, yard, other, "true")["exit_code"] == 0


def test_whoever_writes_on_into_the_output_of_an_ended_container_does_not_keep_the_keeper(
    yard: Yard,
) -> None:
    with keeping(yard) as keeper:
        id = begin(keeper, yard, "sh", "-c", "echo up; sleep 1000")
        turn_until(keeper, lambda: "up" in yard.log(id))
        pid = yard.containers.get(id).pid
        # Somebody outside, who has got the pipe by whatever way.
        with subprocess.Popen(["yes"], stdout=os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)) as writer:
            yard.containers.signal(id, signal.SIGKILL)
            turn_until(keeper, yard.instance.container(id).exit.exists)
            writer.kill()


def test_a_launcher_that_hands_over_no_client_ends_no_container(yard: Yard) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, keeping(yard, theirs) as keeper:
        id = begin(keeper, yard)
        sockets.send(ours, {"op": "start", "id": "nobody"})
        assert answer_on(keeper, ours) == {"ended": 1}
        sockets.send_raw(ours, b"[" * 100_000)
        turn_until(keeper, lambda: keeper._launcher is None)
        assert execute(keeper, yard, id, "true")["exit_code"] == 0


@pytest.mark.parametrize(
    "message",
    [
        b"j" + b"[" * 100_000,
        b"j[]",
        b"j{}",
        b"f",
        b"",
        b'j{"op":{"a":[]}}',
        b'j{"op":"exec"}',
        b'j{"op":"exec","config":7}',
        b'j{"op":"exec","config":{"argv":7}}',
        b'j{"op":"exec","config":{"argv":[7]}}',
        b'j{"op":"exec","config":{"argv":["true"],"cwd":[1],"env":3}}',
        b'j{"op":"exec","config":{"argv":["true"],"user":"\\ud800"}}',
        b'j{"op":"attach","stdin":[],"complete":{}}',
        b'j{"op":"hold","x":1}',
    ],
)
def test_a_strange_request_concerns_only_who_makes_it(yard: Yard, message: bytes) -> None:
    pipe = os.pipe()
    with keeping(yard) as keeper:
        id = begin(keeper, yard)
        before = len(os.listdir("/proc/self/fd"))
        for fds in ([], [pipe[0]] * 200):
            with sockets.connect(str(yard.containers.monitor_socket(id))) as connection:
                socket.send_fds(connection, [message], fds)
                for _ in range(20):
                    keeper.turn(0.01)
        turn_until(keeper, lambda: len(os.listdir("/proc/self/fd")) == before)
        assert execute(keeper, yard, id, "true")["exit_code"] == 0
    for fd in pipe:
        os.close(fd)


def test_one_connection_may_ask_for_several_things(yard: Yard) -> None:
    with keeping(yard) as keeper:
        id = begin(keeper, yard)
        with client(yard, id, {"op": "watch", "execs": True}) as connection:
            sockets.send(connection, {"op": "exec", "config": {"argv": ["true"]}})
            assert "started" in answer_on(keeper, connection)
            assert answer_on(keeper, connection) == {"exit_code": 0}
        assert execute(keeper, yard, id, "true")["exit_code"] == 0
        yard.containers.signal(id, signal.SIGKILL)
        turn_until(keeper, yard.instance.container(id).exit.exists)


def test_a_keeper_without_free_descriptors_keeps_what_it_has(yard: Yard) -> None:
    with keeping(yard) as keeper:
        id = begin(keeper, yard)
        path = str(yard.containers.monitor_socket(id))
        clients = [client(yard, id, {"op": "nothing"}) for _ in range(3)]
        for left in range(12):
            waiting = sockets.connect(path)
            sockets.send(waiting, {"op": "exec", "config": {"argv": ["true"], "tty": True}})
            filled = []
            with contextlib.suppress(OSError):
                while True:
                    filled.append(os.dup(0))
            for _ in range(left):
                os.close(filled.pop())
            for _ in range(30):
                keeper.turn(0.01)
            for fd in filled:
                os.close(fd)
            answer_on(keeper, waiting)
            waiting.close()
        assert execute(keeper, yard, id, "true", tty=True)["exit_code"] == 0
        for one in clients:
            one.close()


def test_a_ward_whose_time_has_come_and_that_fails_ends_alone(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeping(yard) as keeper:
        ill, well = begin(keeper, yard), begin(keeper, yard)
        tick = Monitor.tick

        def fail(self: Monitor) -> None:
            if self.id == ill:
                raise ZeroDivisionError("a fault")
            tick(self)

        with monkeypatch.context() as patched:
            patched.setattr(Monitor, "tick", fail)
            turn_until(keeper, yard.instance.container(ill).exit.exists)
        assert execute(keeper, yard, well, "true")["exit_code"] == 0


def test_one_that_says_much_leaves_the_others_their_turn(yard: Yard) -> None:
    with keeping(yard) as keeper:
        talkers = [begin(keeper, yard, "yes") for _ in range(3)]
        calm = begin(keeper, yard)
        with client(yard, calm, {"op": "exec", "config": {"argv": ["true"]}}) as connection:
            before = sum(yard.containers.log_path(id).stat().st_size for id in talkers)
            turns = 0
            while not select.select([connection], [], [], 0)[0]:
                keeper.turn(1.0)
                turns += 1
            after = sum(yard.containers.log_path(id).stat().st_size for id in talkers)
        # A portion of each makes about 600 kB of log, and is not taken in each turn.
        assert after - before < (turns + 1) * 1_000_000


def test_a_strange_request_does_not_end_the_launcher(yard: Yard) -> None:
    first = yard.start("sleep", "1000", group="shop")
    launcher = yard.launcher_pid()
    for message in (
        b"j" + b"[" * 100_000,
        b"f",
        b"j7",
        b'j{"op":{}}',
        b'j{"op":"start"}',
        b'j{"op":"start","id":7,"group":[1]}',
        b'j{"op":"start","id":"../../etc","group":"shop"}',
        b'j{"op":"start","id":"nobody","group":"shop","secrets":5}',
    ):
        with sockets.connect(str(yard.instance.launcher_socket)) as connection:
            socket.send_fds(connection, [message], [])
            with contextlib.suppress(EOFError):
                assert "error" in sockets.receive(connection)[0]
    second = yard.start("sleep", "1000", group="shop")
    assert yard.launcher_pid() == launcher
    assert yard.monitor_pid(first) == yard.monitor_pid(second)


def test_a_start_is_undone_though_the_child_that_does_it_is_killed(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    me, discard = os.getpid(), Starting._discard

    def killed(self: Starting) -> None:
        if os.getpid() != me:
            os.kill(os.getpid(), signal.SIGKILL)
        discard(self)

    with keeping(yard) as keeper:
        monkeypatch.setattr(Starting, "_discard", killed)
        id, answer = ask(keeper, yard, "no-such-command")
        assert answer["error"]["exit_code"] == 127
        assert not yard.instance.container(id).run_directory.exists()
        assert yard.containers.get(id).status == "created"


def test_an_end_is_recorded_and_told_though_clients_hold_all_descriptors(yard: Yard) -> None:
    with keeping(yard) as keeper:
        ids = [begin(keeper, yard) for _ in range(2)]
        watches = [yard.containers.watch(id) for id in ids]
        keeper.turn(0.01)
        keeper.turn(0.01)
        for id, watch in zip(ids, watches, strict=True):
            yard.containers.signal(id, signal.SIGKILL)
            filled = []
            with contextlib.suppress(OSError):
                while True:
                    filled.append(os.dup(0))
            turns = 0
            while turns < 500 and not select.select([watch], [], [], 0)[0]:
                keeper.turn(0.05)
                turns += 1
                with contextlib.suppress(OSError):
                    while True:
                        filled.append(os.dup(0))
            told = bool(select.select([watch], [], [], 0)[0])
            for fd in filled:
                os.close(fd)
            assert told
            watch.close()
        assert [yard.containers.get(id).exit_code for id in ids] == [137, 137]
