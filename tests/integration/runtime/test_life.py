"""From create to delete: exit codes, signals, restarts, and what must not be possible."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runtime.container.config import ContainerConfig
from runtime.errors import (
    AlreadyExists,
    ContainerStartError,
    InvalidState,
    NotFound,
    RuntimeFault,
)
from tests.integration.runtime.yard import Run, Yard, until


def test_the_exit_code_is_recorded(shared: Yard) -> None:
    assert shared.sh("exit 3").exit_code == 3


def test_it_ends_with_its_first_process_whoever_holds_its_output(shared: Yard) -> None:
    run = shared.sh("setsid sleep 1000 & echo said; exit 4")
    assert (run.exit_code, run.output) == (4, "said\n")


def test_a_signal_counts_as_128_more(shared: Yard) -> None:
    id = shared.start("sleep", "1000")
    assert shared.kill(id).exit_code == 137
    assert shared.sh("sleep 1000 & kill -TERM $!; wait $!; exit $?").exit_code == 143


def test_states_follow_each_other(shared: Yard) -> None:
    id = shared.create("sleep", "1000")
    assert shared.containers.get(id).status == "created"
    state = shared.containers.start(id)
    assert state.status == "running" and state.pid is not None and state.started_at is not None
    assert Path(f"/proc/{state.pid}/comm").read_text() == "sleep\n"
    assert shared.containers.get(id) == state
    shared.kill(id)
    ended = shared.containers.get(id)
    assert ended.status == "exited" and ended.pid is None
    assert ended.started_at == state.started_at
    assert ended.finished_at is not None and ended.finished_at >= state.started_at
    shared.containers.delete(id)
    with pytest.raises(NotFound):
        shared.containers.get(id)


def test_the_program_has_the_first_pid_of_a_namespace_of_its_own(shared: Yard) -> None:
    run = shared.sh("echo $$; echo /proc/[0-9]*")
    assert run.output.split() == ["1", "/proc/1"]


def test_a_trapped_signal_ends_it_in_its_own_way(shared: Yard) -> None:
    id = shared.start("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")
    shared.wait_for_output(id, "ready")
    assert not shared.containers.would_ignore(id, signal.SIGTERM)
    shared.containers.signal(id, signal.SIGTERM)
    assert shared.finish(id).exit_code == 7


def test_a_first_process_that_handles_no_signal_is_known_to_ignore_it(shared: Yard) -> None:
    id = shared.start("sleep", "1000")
    assert shared.containers.would_ignore(id, signal.SIGTERM)
    assert not shared.containers.would_ignore(id, signal.SIGKILL)
    shared.containers.signal(id, signal.SIGTERM)
    assert shared.containers.get(id).status == "running"


def test_an_init_passes_signals_on_and_reaps_orphans(shared: Yard) -> None:
    # The shell exits at once and leaves its child to process 1.
    script = """
    (sleep 0.01 & exit 0)
    sleep 0.2
    ps -o stat,comm | grep -c '^Z'
    echo ready
    trap 'exit 9' TERM
    while :; do sleep 0.01; done
    """
    id = shared.start("sh", "-c", script, init=True)
    assert shared.wait_for_output(id, "ready").split() == ["0", "ready"]
    assert not shared.containers.would_ignore(id, signal.SIGTERM)
    shared.containers.signal(id, signal.SIGTERM)
    assert shared.finish(id).exit_code == 9


def test_an_init_gives_on_how_its_child_ended(shared: Yard) -> None:
    assert shared.run("sh", "-c", "exit 5", init=True).exit_code == 5
    assert shared.run("sh", "-c", "kill -KILL $$", init=True).exit_code == 137


def test_a_command_that_cannot_be_run_fails_the_start_and_leaves_it_created(shared: Yard) -> None:
    for command, code, hint in (
        ("nowhere", 127, "install it"),
        ("/bin/nowhere", 127, "check the command"),
        ("/etc/passwd", 126, "not executable"),
        ("/etc", 126, "not executable"),
    ):
        id = shared.create(command)
        with pytest.raises(ContainerStartError) as caught:
            shared.containers.start(id)
        assert caught.value.exit_code == code
        assert command in str(caught.value)
        assert caught.value.hint is not None and hint in caught.value.hint
        assert shared.containers.get(id).status == "created"
        shared.containers.delete(id)


def test_a_script_whose_interpreter_is_missing_says_so(shared: Yard, tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "bin").mkdir(parents=True)
    script = top / "bin/script"
    script.write_text("#!/usr/bin/nothing\n")
    script.chmod(0o755)
    id = shared.create("script", layers=(str(shared.layer), str(top)))
    with pytest.raises(ContainerStartError) as caught:
        shared.containers.start(id)
    assert caught.value.exit_code == 127
    assert caught.value.hint is not None and "interpreter" in caught.value.hint


def test_no_command_at_all_is_an_error(shared: Yard) -> None:
    with pytest.raises(ContainerStartError, match="no command"):
        shared.start()


def test_a_restart_keeps_the_writable_layer_and_counts_anew(yard: Yard) -> None:
    id = yard.start("sh", "-c", "echo x >> /kept; wc -l < /kept; exit $(wc -l < /kept)")
    assert yard.finish(id).exit_code == 1
    first = yard.containers.get(id)
    yard.containers.start(id)
    second = yard.finish(id)
    assert second.exit_code == 2
    assert (second.started_at or 0) > (first.finished_at or 0)
    assert yard.log(id).split() == ["1", "2"]


def test_what_runs_cannot_be_started_or_deleted(shared: Yard) -> None:
    id = shared.start("sleep", "1000")
    with pytest.raises(InvalidState, match="running"):
        shared.containers.start(id)
    with pytest.raises(InvalidState, match="running"):
        shared.containers.delete(id)
    shared.containers.delete(id, force=True)
    with pytest.raises(NotFound):
        shared.containers.delete(id)


def test_a_paused_container_stands_still_and_can_be_removed(yard: Yard) -> None:
    id = yard.start("sh", "-c", "while :; do echo x; sleep 0.01; done")
    yard.wait_for_output(id, "x")
    yard.containers.pause(id, True)
    assert yard.containers.get(id).status == "paused"
    with pytest.raises(InvalidState, match="paused"):
        yard.containers.pause(id, True)
    with pytest.raises(InvalidState, match="paused"):
        yard.exec(id, "true")
    pid = yard.containers.get(id).pid
    ticks = Path(f"/proc/{pid}/stat").read_text().split()[13:15]
    lines = len(yard.log_lines(id))
    assert Path(f"/proc/{pid}/stat").read_text().split()[13:15] == ticks
    yard.containers.pause(id, False)
    until(lambda: len(yard.log_lines(id)) > lines + 5, what="it goes on")
    yard.containers.pause(id, True)
    yard.containers.delete(id, force=True)


_HOLDER = """
import sys
from runtime.container.sessions import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_what_a_client_holds_goes_on_when_the_client_is_killed(yard: Yard) -> None:
    id = yard.start("sleep", "1000")
    socket = str(yard.containers.monitor_socket(id))
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with yard.containers.hold(id):
            assert yard.containers.get(id).status == "paused"
        assert yard.containers.get(id).status == "paused"
        holder.kill()
    until(lambda: yard.containers.get(id).status == "running", what="it goes on")


def test_what_was_paused_stays_so_after_a_hold(yard: Yard) -> None:
    id = yard.start("sleep", "1000")
    yard.containers.pause(id, True)
    with yard.containers.hold(id):
        assert yard.containers.get(id).status == "paused"
    assert yard.containers.get(id).status == "paused"
    yard.containers.pause(id, False)
    assert yard.exec(id, "true").exit_code == 0


def test_of_two_creates_at_once_one_fails(shared: Yard) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def create() -> None:
        barrier.wait()
        try:
            shared.create("true", id="twice")
            outcomes.append("made")
        except AlreadyExists:
            outcomes.append("refused")

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["made"] + ["refused"] * 7


def test_of_two_starts_at_once_one_fails(shared: Yard) -> None:
    id = shared.create("sleep", "1000")
    outcomes: list[str] = []

    def start() -> None:
        try:
            shared.containers.start(id)
            outcomes.append("started")
        except InvalidState:
            outcomes.append("refused")

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 3 + ["started"]


@pytest.mark.parametrize("id", ["../x", ".", "..", "", "a/b", "a\n", "-x", "ä", "x" * 129, "a\0b"])
def test_an_id_cannot_leave_its_directory(shared: Yard, id: str) -> None:
    with pytest.raises(RuntimeFault, match="not valid"):
        shared.containers.create(ContainerConfig(id=id, layers=(), argv=("true",)))
    for call in (shared.containers.get, shared.containers.start, shared.containers.delete):
        with pytest.raises(NotFound):
            call(id)
    assert not (shared.instance.root / "x").exists()


def test_asking_for_what_is_not_there_leaves_nothing(shared: Yard) -> None:
    for call in (shared.containers.start, shared.containers.delete):
        with pytest.raises(NotFound):
            call("absent")
    assert not (shared.instance.containers / ".lock-absent").exists()


def test_a_sweep_removes_what_a_crash_left(yard: Yard) -> None:
    id = yard.create("true")
    for name in (".new-half.abcd", ".gone-xyz"):
        (yard.instance.containers / name / "upper").mkdir(parents=True)
    (yard.instance.containers / ".lock-half").touch()
    assert yard.containers.sweep() == []
    left = sorted(entry.name for entry in yard.instance.containers.iterdir())
    assert left == [".empty", f".lock-{id}", id]


def test_umask_signals_and_session_are_not_those_of_the_starter(yard: Yard) -> None:
    old = os.umask(0o077)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (1, 3, 13, 25)}
    try:
        run = yard.sh("umask; grep -E 'Sig(Blk|Ign)' /proc/self/status; cat /proc/1/stat")
    finally:
        os.umask(old)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    mask, blocked, ignored, stat = run.output.splitlines()
    assert mask == "0022"
    assert int(blocked.split()[1], 16) == int(ignored.split()[1], 16) == 0
    assert stat.split()[4:6] == ["1", "1"]  # leads its own group and session


def test_labels_and_names_are_never_commands(yard: Yard) -> None:
    hostile = "a\nb; touch /hacked $(touch /hacked) -x"
    run = yard.sh('echo "$ODD"', labels={hostile: hostile}, env=(f"ODD={hostile}",))
    assert run.output == hostile + "\n"


def test_the_environment_of_one_is_never_in_another(yard: Yard) -> None:
    first = yard.start("sleep", "1000", env=("SECRET=1",))
    run = yard.sh("env")
    assert sorted(line.partition("=")[0] for line in run.output.splitlines()) == [
        "HOME", "PATH", "PWD", "SHLVL",
    ]  # fmt: skip
    assert "SECRET" not in yard.exec(first, "cat", "/proc/self/environ", env=("X=1",)).errors


def test_much_environment_and_long_arguments_arrive_whole(yard: Yard) -> None:
    env = tuple(f"V{number}={'v' * 1000}" for number in range(400))
    argument = "a" * 120_000
    run = yard.run(
        "sh", "-c", "env | wc -c; echo ${#1}; echo ${#2}", "-", argument, argument, env=env
    )
    size, first, second = (int(word) for word in run.output.split())
    assert size > 400_000 and first == second == 120_000


def test_text_beyond_ascii_arrives_as_it_is(yard: Yard) -> None:
    assert yard.run("echo", "grüße ✓", env=("N=ü",)).output == "grüße ✓\n"


def test_a_hundred_start_at_once(yard: Yard) -> None:
    ids = [yard.create("sleep", "1000") for _ in range(100)]
    failures: list[BaseException] = []

    def start(some: list[str]) -> None:
        for id in some:
            try:
                yard.containers.start(id)
            except BaseException as error:  # shown by the assertion below
                failures.append(error)

    threads = [threading.Thread(target=start, args=(ids[i::20],)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {state.status for state in yard.containers.list()} == {"running"}
    assert len({state.pid for state in yard.containers.list()}) == 100


def test_an_init_as_another_user_runs_and_is_called_so(yard: Yard) -> None:
    run = yard.sh("cat /proc/1/comm; id -u", init=True, user="bob")
    assert run == Run(0, "init\n1000\n")
