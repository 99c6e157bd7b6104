"""The daemon comes when needed, may go at any moment, and nothing is lost."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

_COUNTING = """
services:
  counter:
    image: debian:bookworm
    init: true
    stop_grace_period: 0s
    command: ["bash", "-c", "for ((i = 0; ; i++)); do echo $$i; sleep 0.02; done"]
  leaver:
    image: debian:bookworm
    volumes: ["./:/here"]
    command: ["bash", "-c", "until [ -e /here/go ]; do sleep 0.05; done; exit 7"]
"""


def test_killed_it_leaves_containers_logs_and_exit_codes_alone(
    bay: Bay, project: Callable[..., Path], eventually: Callable[..., None]
) -> None:
    directory = project(_COUNTING)
    bay.ok("up", "-d", cwd=directory)
    before = bay.containers(directory)

    bay.kill_daemon()
    (directory / "go").touch()
    eventually(
        lambda: len(bay.ok("-p", directory.name, "logs", "counter").splitlines()) > 50,
        "the counter has gone on",
    )

    counter, leaver = f"{directory.name}-counter-1", f"{directory.name}-leaver-1"
    eventually(
        lambda: bay.containers(directory)[leaver]["State"] == "exited", "the leaver has left"
    )
    after = bay.containers(directory)
    assert after[leaver]["ExitCode"] == 7
    assert after[counter]["State"] == "running"
    assert after[counter]["ID"] == before[counter]["ID"]
    lines = bay.ok("logs", "--no-log-prefix", "counter", cwd=directory).split()
    assert lines == [str(number) for number in range(len(lines))]


def test_following_logs_goes_on_while_the_daemon_is_replaced(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(_COUNTING)
    bay.ok("up", "-d", cwd=directory)

    with bay.started("logs", "-f", "--no-log-prefix", "counter", cwd=directory) as following:
        assert following.stdout is not None
        seen = [following.stdout.readline().strip() for _ in range(20)]
        bay.kill_daemon()
        seen += [following.stdout.readline().strip() for _ in range(20)]
        bay.ok("ps", cwd=directory)
        seen += [following.stdout.readline().strip() for _ in range(20)]

    assert seen == [str(number) for number in range(60)]


def test_many_commands_at_once_start_one_daemon(new_instance: Callable[..., Bay]) -> None:
    bay = new_instance()
    commands = [
        subprocess.Popen(bay.command("ls"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(5)
    ]

    for command in commands:
        _, complaint = command.communicate(timeout=60)
        assert command.returncode == 0, complaint

    daemons = [line for line in bay.leftovers()["processes"] if "supervisor.daemon" in line]
    assert len(daemons) == 1
    bay.ok("daemon", "stop")
    assert bay.leftovers() == {}


def test_asking_for_the_version_starts_nothing(new_instance: Callable[..., Bay]) -> None:
    bay = new_instance()

    assert "daemon: not running" in bay.ok("version")
    assert bay("daemon", "status").status == 3
    assert bay.leftovers() == {}


def test_one_that_cannot_start_says_why(new_instance: Callable[..., Bay]) -> None:
    bay = new_instance()
    with contextlib.closing(sqlite3.connect(bay.root / "state.db")) as database:
        database.execute("PRAGMA user_version = 999")

    failed = bay("ls")

    assert failed.status == 1
    assert "the daemon did not start" in failed.err
    assert "the state database has version 999" in failed.err
    assert "Traceback" not in failed.err
    (bay.root / "state.db").unlink()


def test_a_damaged_database_is_set_aside(new_instance: Callable[..., Bay]) -> None:
    bay = new_instance()
    (bay.root / "state.db").write_bytes(b"this is no database" * 100)

    assert bay("ls").status == 0
    assert list(bay.root.glob("state.db.damaged-*"))


def test_without_root_it_says_so(new_instance: Callable[..., Bay]) -> None:
    # A user namespace without a mapping: nobody to itself, yet able to read our interpreter.
    command = new_instance().command("ls")[2:]
    done = subprocess.run(
        ["unshare", "--user", *command], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    message, hint = done.stderr.splitlines()
    assert "only root" in message
    assert "sudo" in hint
