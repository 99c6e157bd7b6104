"""The run directory is removed, or moved, under a daemon and containers that live on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client.errors import ClientError
from orchestrator.engine.errors import chain
from runtime.container.config import ExecConfig
from runtime.container.sessions import open_exec
from runtime.errors import InvalidState
from tests.integration.supervisor.harbour import IMAGE, Harbour, command_lines

# They end of themselves when nobody would, as a test that fails may not reach them.
SERVICE = {"image": IMAGE, "init": True, "command": ["sleep", "500"], "stop_grace_period": 0}


def stack(**more: Any) -> dict[str, Any]:
    service = {**SERVICE, "networks": {"default": {}}, "restart": "always", **more}
    return {
        "version": 1,
        "name": "shop",
        "working_dir": "/srv/shop",
        "config_files": ["/srv/shop/compose.yaml"],
        "services": {"api": service, "web": service},
        "networks": {"default": {"name": "shop_default"}},
    }


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, f"it did not come to be that {what}"
        time.sleep(0.02)


def answers(harbour: Harbour) -> bool:
    with contextlib.suppress(ClientError):
        return bool(harbour.client.get("/v1/version"))
    return False


def launchers(harbour: Harbour) -> list[int]:
    title = f"bay: launcher of {harbour.root}"
    return [pid for pid, line in command_lines() if line.strip() == title]


def hello(harbour: Harbour, name: str) -> int:
    """The exit code of a command in a container, through its monitor's socket."""
    socket = harbour.containers()[name]["monitor_socket"]
    with open_exec(socket, ExecConfig(argv=("/bin/true",), env=("PATH=/bin",))) as session:
        return session.wait()


def restarted(harbour: Harbour, name: str) -> bool:
    container = harbour.containers()[name]
    return (container["restarts"], container["state"]) == (1, "running")


def remove(directory: Path) -> None:
    # What namespaces are held by is in use, and stays.
    subprocess.run(["rm", "-rf", str(directory)], capture_output=True, check=False)


def move(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


@pytest.fixture
def aside(harbour: Harbour) -> Iterator[Path]:
    """Where `move` puts the directory; what is mounted in it goes at the end."""
    place = harbour.run.with_name("elsewhere")
    yield place
    for held in place.glob("netns/*"):
        subprocess.run(["umount", "-l", str(held)], check=True)


@pytest.mark.parametrize("take_away", [remove, move])
def test_everything_but_entering_goes_on_and_a_restart_brings_that_back(
    harbour: Harbour, aside: Path, take_away: Callable[[Path], None]
) -> None:
    harbour.up(stack())
    (launcher,) = launchers(harbour)
    assert hello(harbour, "shop-api-1") == 0

    take_away(harbour.run)

    until(lambda: answers(harbour), "the daemon answers")
    until(lambda: launcher not in launchers(harbour), "a launcher that nobody finds has ended")
    assert {c["state"] for c in harbour.containers().values()} == {"running"}
    if take_away is remove:
        with pytest.raises(InvalidState) as caught:
            hello(harbour, "shop-api-1")
        assert "a restart makes another" in str(caught.value.hint), chain(caught.value)
        log = harbour.run / "daemon.log"
        until(lambda: log.read_text().count("exec and attach need a restart") == 2, "it is told")
    assert harbour.result("restart", services=["api"])["ok"]
    assert hello(harbour, "shop-api-1") == 0
    assert len(launchers(harbour)) == 1
    # Ends are noticed without a word from the monitor, too.
    before = harbour.containers()["shop-web-1"]
    os.kill(harbour.runs()[before["id"]].pid, signal.SIGKILL)
    until(lambda: restarted(harbour, "shop-web-1"), "web is started again")
    assert hello(harbour, "shop-web-1") == 0
    assert harbour.up(stack()) == []


def test_the_next_daemon_keeps_containers_whose_monitors_it_cannot_find(
    harbour: Harbour, aside: Path
) -> None:
    harbour.up(stack())
    runs = harbour.runs()
    (launcher,) = launchers(harbour)
    harbour.kill()
    remove(harbour.run)
    harbour.run.mkdir(exist_ok=True)
    harbour.start()
    assert harbour.runs() == runs
    assert {c["state"] for c in harbour.containers().values()} == {"running"}
    for record in runs.values():
        os.kill(record.pid, signal.SIGKILL)
    names = sorted(harbour.containers())
    until(lambda: all(restarted(harbour, name) for name in names), "both are started again")
    assert {hello(harbour, name) for name in names} == {0}
    # Nobody was there to remember it.
    (lost,) = (pid for pid in launchers(harbour) if pid == launcher)
    os.kill(lost, signal.SIGKILL)


def test_a_second_daemon_says_who_has_the_state_directory_and_where(
    harbour: Harbour, tmp_path: Path
) -> None:
    other = Harbour.__new__(Harbour)
    other.root, other.run, other.netns = harbour.root, tmp_path / "other", harbour.netns
    other.run.mkdir()
    with pytest.raises(AssertionError) as caught:
        other.start()
    assert f"runs already for {harbour.root}, with --run {harbour.run}" in str(caught.value)
