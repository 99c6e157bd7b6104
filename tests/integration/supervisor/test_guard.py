"""A daemon that is killed comes back by itself; one that is told to end does not."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from orchestrator.client.errors import DaemonUnreachable
from orchestrator.engine.guard import release
from tests.integration.supervisor.harbour import Harbour, command_lines
from tests.integration.supervisor.test_crashes import stack, until


def answering(harbour: Harbour) -> int:
    """The pid of the daemon that answers, 0 where none does."""
    try:
        return int(harbour.client.get("/v1/version")["pid"])
    except DaemonUnreachable:
        return 0


@pytest.fixture
def guarded(harbour: Harbour) -> Iterator[Harbour]:
    """A harbour whose daemon asks for the guard; the last one is told to end."""
    harbour.stop()
    harbour.start("--guard")
    try:
        until(lambda: held(harbour), "the launcher guards the daemon")
        yield harbour
    finally:
        if pid := answering(harbour):
            end(harbour, pid)
        release(str(harbour.run))
        harbour.wait()


def held(harbour: Harbour) -> bool:
    """Whether somebody has a connection to the launcher open, which has one more to listen, and
    one to each of its keepers."""
    found = 0
    for pid, line in command_lines():
        if line.startswith(f"bay: launcher of {harbour.root}"[:60]):
            with open(f"/proc/{pid}/task/{pid}/children") as children:
                own = {int(child) for child in children.read().split()}
            found -= sum(
                other in own and text.startswith("bay: monitor of")
                for other, text in command_lines()
            )
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
    return found >= 2


def daemons(harbour: Harbour) -> list[int]:
    """The processes that are the daemon, or want to be."""
    wanted = f"orchestrator.supervisor.daemon --root {harbour.root} "
    return [pid for pid, line in command_lines() if wanted in line]


def end(harbour: Harbour, pid: int) -> None:
    harbour.client.post("/v1/shutdown")
    until(lambda: not _alive(pid), "the daemon has ended")


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_daemon_comes_back_and_looks_after_its_containers(guarded: Harbour) -> None:
    guarded.up(stack())
    began = time.monotonic()
    guarded.kill()
    until(lambda: answering(guarded), "a daemon answers again", 5)
    assert time.monotonic() - began < 5
    id = guarded.containers()["shop-store-1"]["id"]
    os.kill(guarded.runs()[id].pid, signal.SIGKILL)
    until(
        lambda: guarded.containers()["shop-store-1"]["restarts"] == 1, "the store is started again"
    )


def test_it_comes_back_again_and_again(guarded: Harbour) -> None:
    guarded.kill()
    for _ in range(2):
        until(lambda: answering(guarded), "a daemon answers again", 10)
        until(lambda: held(guarded), "the launcher guards it")
        os.kill(answering(guarded), signal.SIGKILL)
    until(lambda: answering(guarded), "a daemon answers again", 10)


@pytest.mark.parametrize("how", ["call", "signal"])
def test_a_daemon_that_is_told_to_end_stays_away(guarded: Harbour, how: str) -> None:
    guarded.up(stack())
    if how == "call":
        end(guarded, answering(guarded))
    else:
        guarded.stop()
    until(lambda: not held(guarded), "the launcher guards nobody")
    assert "started again" not in (guarded.root / "launcher.log").read_text()
    assert answering(guarded) == 0
    assert len(guarded.runs()) == 3


def test_a_daemon_that_was_killed_is_given_up_on_request(guarded: Harbour) -> None:
    guarded.up(stack())
    guarded.kill()
    until(lambda: answering(guarded), "a daemon answers again", 5)
    until(lambda: held(guarded), "the launcher guards it")
    os.kill(answering(guarded), signal.SIGKILL)  # the next one would come in a second
    assert release(str(guarded.run))
    time.sleep(2.0)  # what must not happen would have by now
    assert answering(guarded) == 0


def test_who_starts_a_daemon_where_one_is_starting_finds_that_one(guarded: Harbour) -> None:
    guarded.kill()
    guarded.start("--guard")
    assert answering(guarded)
    until(lambda: len(daemons(guarded)) == 1, "the other one has given way")
