"""A further process in a running container."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.container.config import ExecConfig, Ulimit
from runtime.errors import ContainerStartError, InvalidState, RuntimeFault
from runtime.linux import sockets, terminals
from tests.integration.runtime.yard import Run, Yard, until


@pytest.fixture(scope="module")
def running(shared: Yard) -> Iterator[str]:
    id = shared.start(
        "sleep",
        "1000",
        env=("A=1", "B=2"),
        cwd="/tmp",
        ulimits=(Ulimit(name="nofile", soft=100, hard=200),),
        oom_score_adj=300,
    )
    yield id
    shared.containers.delete(id, force=True)


def test_output_error_and_exit_code_come_back(shared: Yard, running: str) -> None:
    run = shared.exec(running, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert run == Run(7, "out\n", "err\n")


def test_input_is_read_to_its_end(shared: Yard, running: str) -> None:
    assert shared.exec(running, "cat", stdin=b"hello\n").output == "hello\n"


def test_without_input_it_reads_nothing(shared: Yard, running: str) -> None:
    assert shared.exec(running, "cat") == Run(0, "")
    assert "-> /dev/null" in shared.exec(running, "ls", "-l", "/proc/self/fd/0").output


def test_it_is_in_the_container(shared: Yard, running: str) -> None:
    mine = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid", "ipc", "uts")}
    for kind, own in mine.items():
        link = shared.exec(running, "readlink", f"/proc/self/ns/{kind}").output.strip()
        assert link == shared.exec(running, "readlink", f"/proc/1/ns/{kind}").output.strip()
        assert link != own
    group = shared.exec(running, "cat", "/proc/self/cgroup").output
    assert group == shared.exec(running, "cat", "/proc/1/cgroup").output


def test_the_environment_is_the_container_s_and_what_is_added(shared: Yard, running: str) -> None:
    run = shared.exec(running, "env", env=("B=3", "C=4"))
    assert {"A=1", "B=3", "C=4", "HOME=/root"} <= set(run.output.splitlines())


def test_user_and_directory_are_the_container_s_unless_given(shared: Yard, running: str) -> None:
    assert shared.exec(running, "pwd").output == "/tmp\n"
    assert shared.exec(running, "pwd", cwd="/etc").output == "/etc\n"
    assert shared.exec(running, "id", "-u").output == "0\n"
    run = shared.exec(running, "sh", "-c", "id -u; id -g; id -G; echo $HOME", user="bob")
    assert run.output.split() == ["1000", "1000", "1000", "2000", "/home/bob"]
    assert shared.exec(running, "id", "-G", user="5:3000").output == "3000\n"
    with pytest.raises(RuntimeFault, match="unable to find user eve"):
        shared.exec(running, "true", user="eve")


def test_limits_are_the_container_s(shared: Yard, running: str) -> None:
    run = shared.exec(running, "sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj")
    assert run.output.split() == ["100", "300"]


def test_what_cannot_be_executed_has_docker_s_exit_codes(shared: Yard, running: str) -> None:
    for command, code in (("nowhere", 127), ("/etc/passwd", 126), ("/tmp", 126)):
        with pytest.raises(ContainerStartError) as caught:
            shared.exec(running, command)
        assert caught.value.exit_code == code
    assert shared.exec(running, "true").exit_code == 0


def test_a_directory_that_is_missing_is_said(shared: Yard, running: str) -> None:
    with pytest.raises(ContainerStartError, match=r"working directory /nowhere: no such file"):
        shared.exec(running, "true", cwd="/nowhere")


def test_an_empty_or_broken_command_is_refused(shared: Yard, running: str) -> None:
    with pytest.raises(ContainerStartError, match="no command"):
        shared.exec(running)
    with pytest.raises(ContainerStartError, match="null byte"):
        shared.exec(running, "echo", "a\0b")


def test_a_terminal_has_its_size_and_is_the_controlling_one(shared: Yard, running: str) -> None:
    run = shared.exec(
        running,
        "sh",
        "-c",
        "tty; stty size; echo $TERM; : < /dev/tty && echo controls; exit 4",
        tty=True,
        rows=40,
        columns=100,
    )
    assert run.exit_code == 4
    assert run.output.splitlines() == ["/dev/pts/0", "40 100", "xterm", "controls"]


def test_a_terminal_can_be_resized_and_interrupted(shared: Yard, running: str) -> None:
    config = ExecConfig(argv=("sh", "-c", "echo ready; sleep 1000"), tty=True)
    with shared.containers.exec(running, config) as session:
        assert session.terminal is not None
        assert os.read(session.terminal, 100) == b"ready\r\n"
        terminals.resize(session.terminal, rows=7, columns=8)
        assert terminals.size(session.terminal) == (7, 8)
        os.write(session.terminal, b"\x03")
        assert session.wait() == 128 + signal.SIGINT


def test_a_process_that_is_killed_counts_as_128_more(shared: Yard, running: str) -> None:
    config = ExecConfig(argv=("sleep", "1000"))
    with shared.containers.exec(running, config) as session:
        assert Path(f"/proc/{session.pid}/comm").read_text() == "sleep\n"
        os.kill(session.pid, signal.SIGKILL)
        assert session.wait() == 137


def test_it_goes_on_when_nobody_waits_for_it(shared: Yard, running: str) -> None:
    session = shared.containers.exec(running, ExecConfig(argv=("sleep", "1000")))
    session.close()
    assert Path(f"/proc/{session.pid}/comm").read_text() == "sleep\n"
    os.kill(session.pid, signal.SIGKILL)
    assert shared.exec(running, "true").exit_code == 0


def test_it_ends_though_a_child_of_it_keeps_its_output_open(shared: Yard, running: str) -> None:
    config = ExecConfig(argv=("sh", "-c", "setsid sleep 1000 & exit 3"))
    with shared.containers.exec(running, config) as session:
        assert session.wait() == 3


def test_it_dies_with_the_container(shared: Yard) -> None:
    id = shared.start("sleep", "1000")
    with shared.containers.exec(id, ExecConfig(argv=("sleep", "1000"))) as session:
        shared.containers.signal(id, signal.SIGKILL)
        assert session.wait() == 137
    assert shared.finish(id).exit_code == 137
    with pytest.raises(InvalidState):
        shared.exec(id, "true")


def test_starting_while_the_container_ends_is_an_error_or_a_run(shared: Yard) -> None:
    for _ in range(10):
        id = shared.start("sh", "-c", "sleep 0.02; exit 3")
        for _ in range(8):
            try:
                assert shared.exec(id, "true").exit_code in (0, 137)
            except RuntimeFault:
                break
        assert shared.finish(id).exit_code == 3
        shared.containers.delete(id)


def test_many_leave_nothing_in_the_monitor(shared: Yard, running: str) -> None:
    monitor = shared.monitor_pid(running)

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{monitor}/fd"))

    shared.exec(running, "true")
    before = descriptors()
    for number in range(100):
        if number % 4 == 3:
            with pytest.raises(ContainerStartError):
                shared.exec(running, "nowhere", tty=number % 8 == 3)
        else:
            shared.exec(running, "true", tty=number % 4 == 1)
    until(lambda: descriptors() <= before, what="the monitor closes what it opened")
    children = Path(f"/proc/{monitor}/task/{monitor}/children")
    until(lambda: len(children.read_text().split()) == 1, what="no zombie is kept")


def test_clients_that_say_nothing_or_nonsense_disturb_nobody(shared: Yard, running: str) -> None:
    path = str(shared.containers.monitor_socket(running))
    silent = [sockets.connect(path) for _ in range(20)]
    for message in (b"", b"x", b"j[]", b"j{", b"jnull", b"f", b'j{"op":"exec"}', b'j{"op":7}'):
        with sockets.connect(path) as client:
            client.send(message)
    with sockets.connect(path) as client:
        sockets.send(client, {"op": "exec", "config": {"argv": "x", "odd": 1}})
        answer, _fds = sockets.receive(client)
        assert "error" in answer
    assert shared.exec(running, "true").exit_code == 0
    for client in silent:
        client.close()
    assert shared.exec(running, "true").exit_code == 0


def test_a_client_that_never_reads_delays_nobody(shared: Yard) -> None:
    id = shared.start("sleep", "1000")
    path = str(shared.containers.monitor_socket(id))
    deaf = [sockets.connect(path) for _ in range(10)]
    for client in deaf:
        sockets.send(client, {"op": "watch"})
        sockets.send(client, {"op": "watch"})
    flood = ExecConfig(argv=("sh", "-c", "yes | head -c 1000000"))
    session = shared.containers.exec(id, flood)  # nobody reads its output
    begun = time.monotonic()
    assert shared.kill(id).exit_code == 137
    assert time.monotonic() - begun < 5
    session.close()
    for client in deaf:
        client.close()


def test_a_request_over_the_size_of_a_packet_arrives(shared: Yard, running: str) -> None:
    env = tuple(f"V{number}={'x' * 100}" for number in range(3000))
    run = shared.exec(running, "sh", "-c", "env | wc -c", env=env)
    assert int(run.output) > 300_000


def test_the_messages_of_the_protocol_are_plain_objects(shared: Yard, running: str) -> None:
    with sockets.connect(str(shared.containers.monitor_socket(running))) as client:
        client.send(b"j" + json.dumps({"op": "dance"}).encode())
        assert select.select([client], [], [], 5)[0]
        assert sockets.receive(client)[0] == {"error": {"message": "unknown request dance"}}
