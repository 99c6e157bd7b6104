"""What runs goes on when the processes around it are killed, and nothing is lost unseen."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runtime.container import init
from runtime.container.config import ExecConfig
from runtime.container.containers import Containers
from runtime.container.record import StartRecord
from runtime.errors import InvalidState, RuntimeFault
from runtime.linux import capabilities, process, sockets
from tests.integration.runtime.yard import Yard, needs, until

_STARTER = """
import sys, time
from pathlib import Path
from runtime.container.containers import Containers
containers = Containers(Path(sys.argv[1]), Path(sys.argv[2]))
containers.start(sys.argv[3])
print("started", flush=True)
time.sleep(1000)
"""


def test_output_and_exit_code_survive_whoever_started_it(yard: Yard) -> None:
    script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.002; done; exit 5"
    id = yard.create("sh", "-c", script)
    arguments = [sys.executable, "-c", _STARTER, str(yard.root), str(yard.sockets), id]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"started\n"
        starter.kill()
    assert yard.finish(id).exit_code == 5
    assert yard.log(id).split("\n")[:-1] == [f"line {number}" for number in range(300)]


def test_whoever_asked_may_be_dead_before_the_answer(yard: Yard) -> None:
    yard.run("true")
    id = yard.create("sleep", "1000")
    with sockets.connect(str(yard.instance.launcher_socket)) as connection:
        sockets.send(connection, {"op": "start", "id": id})
    until(lambda: yard.containers.get(id).status == "running", what="it runs all the same")
    assert yard.exec(id, "true").exit_code == 0


def test_a_killed_monitor_takes_the_container_with_it_and_is_reported(yard: Yard) -> None:
    id = yard.start("sh", "-c", "sleep 1000 & sleep 1000")
    pid = yard.containers.get(id).pid
    os.kill(yard.monitor_pid(id), signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), what="the container dies")
    assert yard.exit_of(id) is None
    state = yard.containers.get(id)
    assert (state.status, state.exit_code) == ("exited", 137)
    assert state.error is not None and "monitor" in state.error
    assert yard.containers.sweep() == [id]
    assert yard.containers.sweep() == []
    assert state.lost
    settled = yard.containers.get(id)
    assert settled == dataclasses.replace(state, lost=False, finished_at=settled.finished_at)
    assert state.started_at is not None and settled.finished_at is not None
    assert state.started_at < settled.finished_at <= time.time_ns()
    yard.containers.start(id)
    assert yard.containers.get(id).status == "running"


def test_an_exit_that_is_recorded_while_a_sweep_looks_is_kept(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = yard.create("sh", "-c", "exit 7")
    yard.containers.start(id)
    assert yard.finish(id).exit_code == 7
    recorded = yard.instance.container(id).exit
    aside = recorded.with_name("aside")
    recorded.rename(aside)
    looks = itertools.count(1)

    def ends_meanwhile(_started: StartRecord) -> bool:
        if next(looks) == 2:
            aside.rename(recorded)
        return False

    monkeypatch.setattr(StartRecord, "alive", ends_meanwhile)
    assert yard.containers.sweep() == []
    assert yard.containers.get(id).exit_code == 7


def test_a_paused_container_whose_monitor_was_killed_is_swept_too(yard: Yard) -> None:
    id = yard.start("sh", "-c", "sleep 1000 & sleep 1000", pid_namespace="host")
    until(lambda: len(yard.containers.processes(id)) == 2, what="both run")
    members = list(yard.containers.processes(id))
    yard.containers.pause(id, True)
    os.kill(yard.monitor_pid(id), signal.SIGKILL)
    until(lambda: yard.containers.get(id).status == "exited", what="it is known to be lost")
    assert yard.containers.sweep() == [id]
    until(lambda: not any(map(process.start_time, members)), what="nothing of it runs")


def test_a_damaged_description_can_be_removed(yard: Yard) -> None:
    id = yard.create("true")
    yard.instance.container(id).config.write_text("")
    with pytest.raises(RuntimeFault, match="is damaged"):
        yard.containers.start(id)
    assert [state.status for state in yard.containers.list()] == ["created"]
    yard.containers.delete(id)


def test_a_child_whose_monitor_died_first_does_not_go_on() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    codes = []
    for alive in (True, False):
        if not alive:
            ours.close()
        pid = os.fork()
        if pid == 0:
            ours.close()
            init.close_all_but(theirs)
            init.stay_with_parent()
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    theirs.close()
    assert codes == [0, 125]


def test_a_container_that_outlives_its_monitor_is_swept(yard: Yard) -> None:
    # prctl(PR_SET_PDEATHSIG, 0) is the program's own to call; a set-user-ID program clears it too.
    id = yard.start("sleep", "1000", pid_namespace="host")
    monitor = yard.monitor_pid(id)
    with yard.containers.exec(id, ExecConfig(argv=("sleep", "1000"))) as session:
        os.kill(monitor, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{monitor}").exists(), what="the monitor is gone")
        yard.containers.sweep()
        until(lambda: process.start_time(session.pid) is None, what="nothing of it runs")
    assert yard.containers.processes(id) == []


def test_containers_run_on_without_the_launcher_and_the_next_start_makes_one(yard: Yard) -> None:
    id = yard.start("sh", "-c", "echo one; while [ ! -e /go ]; do sleep 0.01; done; echo two")
    yard.wait_for_output(id, "one")
    first = yard.launcher_pid()
    os.kill(first, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{first}").exists(), what="the launcher is gone")
    assert yard.containers.get(id).status == "running"
    assert yard.exec(id, "true").exit_code == 0
    other = yard.start("sleep", "1000")
    assert yard.containers.get(other).status == "running"
    yard.exec(id, "touch", "/go")
    assert yard.finish(id).exit_code == 0
    assert yard.log(id) == "one\ntwo\n"


def test_a_sweep_lets_another_launcher_go_and_every_start_is_answered(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = itertools.count()
    monkeypatch.setattr("runtime.container.launcher.identity", lambda: f"code {next(numbers)}")
    id = yard.start("sleep", "1000")
    first = yard.launcher_pid()
    stop = threading.Event()
    failures: list[BaseException] = []

    def start() -> None:
        try:
            while not stop.is_set():
                yard.run("true")
        except BaseException as error:  # shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert yard.containers.sweep() == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert yard.containers.get(id).status == "running"
    until(lambda: first not in yard.processes(f"launcher of {yard.root}"), what="the first ends")


def test_a_sweep_keeps_the_launcher_that_it_would_start(yard: Yard) -> None:
    yard.start("sleep", "1000")
    first = yard.launcher_pid()
    yard.containers.sweep()
    assert yard.run("true").exit_code == 0
    assert yard.launcher_pid() == first


def test_another_process_finds_everything_as_it_is(yard: Yard) -> None:
    id = yard.start("sleep", "1000")
    other = Containers(yard.root, yard.sockets)
    assert other.list() == yard.containers.list()
    with other.watch(id) as connection:
        other.signal(id, signal.SIGKILL)
        connection.recv(1)
    assert yard.containers.get(id).exit_code == 137


def test_a_silent_client_delays_the_launcher_for_some_seconds_at_most(yard: Yard) -> None:
    yard.run("true")
    with sockets.connect(str(yard.instance.launcher_socket)):
        begun = time.monotonic()
        yard.run("true")
    assert time.monotonic() - begun < 10


def test_nonsense_does_not_end_the_launcher(yard: Yard) -> None:
    yard.run("true")
    pid = yard.launcher_pid()
    for message in (b"", b"x", b"j[]", b"f", b'j{"op":"start","id":"../../etc"}', b'j{"op":1}'):
        with sockets.connect(str(yard.instance.launcher_socket)) as client:
            client.send(message)
    assert yard.run("true").exit_code == 0
    assert yard.launcher_pid() == pid


def test_launcher_and_monitors_are_spared_when_memory_runs_out(yard: Yard) -> None:
    spares = capabilities.effective() >> capabilities.NUMBERS["SYS_RESOURCE"] & 1
    needs((bool(spares), "needs CAP_SYS_RESOURCE to lower an OOM score"))
    id = yard.start("sleep", "1000")
    for pid, score in (
        (yard.launcher_pid(), "-900"),
        (yard.monitor_pid(id), "-900"),
        (yard.containers.get(id).pid, "0"),
    ):
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == score


def test_sockets_are_files_that_only_root_can_use(yard: Yard) -> None:
    id = yard.start("sleep", "1000")
    for path in (yard.instance.launcher_socket, yard.containers.monitor_socket(id)):
        assert path.stat().st_mode & 0o777 == 0o600
    assert yard.instance.containers.stat().st_mode & 0o777 == 0o710
    assert (yard.instance.containers / id).stat().st_mode & 0o777 == 0o710
    names = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    assert not [name for name in names if name.startswith("@") and "bay" in name]


@pytest.mark.parametrize("whom", ["first", "last", "all"])
def test_whoever_is_killed_while_a_container_starts_nothing_is_left(yard: Yard, whom: str) -> None:
    """Monitor, starter and the container's first process all bear the monitor's name by then."""
    yard.run("true")
    id = yard.create("sleep", "1000")
    for attempt in range(30):
        outcome: list[object] = []

        def start(outcome: list[object] = outcome) -> None:
            try:
                outcome.append(yard.containers.start(id))
            except RuntimeFault as error:
                outcome.append(error)

        thread = threading.Thread(target=start)
        thread.start()
        begun = time.monotonic()
        while not (found := yard.processes(f"monitor of {id}")) and not outcome:
            pass
        while time.monotonic() - begun < 0.0008 * attempt and not outcome:
            found = yard.processes(f"monitor of {id}") or found
        found.sort()
        for pid in {"first": found[:1], "last": found[-1:], "all": found}[whom]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        thread.join()
        if yard.containers.get(id).status == "running":
            with contextlib.suppress(InvalidState):  # it is ending by itself
                yard.containers.signal(id, signal.SIGKILL)
            yard.finish(id)
        yard.containers.sweep()
        assert yard.containers.processes(id) == []
        assert not yard.instance.container(id).run_directory.exists()
        until(lambda: not yard.processes(f"monitor of {id}"), what="none of them is left")
    yard.containers.start(id)
    assert yard.exec(id, "true").exit_code == 0


def test_a_container_has_one_monitor_at_a_time(yard: Yard) -> None:
    id = yard.start("sleep", "1000")
    with sockets.connect(str(yard.instance.launcher_socket)) as connection:
        sockets.send(connection, {"op": "start", "id": id})
        answer, _fds = sockets.receive(connection)
    assert "or runs" in answer["error"]["message"]
    assert yard.exec(id, "true").exit_code == 0
    assert len(yard.processes(f"monitor of {id}")) == 1
