"""What people, and other programs, do to a stack at the worst moment."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

Project = Callable[..., Path]

_SERVICE = "image: debian:bookworm, init: true, command: sleep 1000, stop_grace_period: 0s"


def stack(mark: str, *names: str) -> str:
    services = "".join(
        f"  {name}: {{{_SERVICE}, environment: {{MARK: {mark}}}}}\n" for name in names
    )
    return f"services:\n{services}"


def test_ups_of_different_files_and_a_down_at_once_follow_one_another(
    bay: Bay, project: Project
) -> None:
    directory = project(stack("one", "api", "web"))
    (directory / "other.yaml").write_text(stack("two", "api", "job"))
    files = (("compose.yaml", "up", "-d"), ("other.yaml", "up", "-d"), ("compose.yaml", "down"))
    runs = [
        subprocess.Popen(
            bay.command("-f", file, "-p", directory.name, *words),
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for file, *words in (*files, *files)
    ]
    for run in runs:
        _, complaint = run.communicate(timeout=120)
        assert run.returncode == 0, complaint

    bay.ok("up", "-d", "--remove-orphans", cwd=directory)
    assert bay("plan", cwd=directory).status == 0
    states = {c["Service"]: c["State"] for c in bay.containers(directory).values()}
    assert {states[name] for name in ("api", "web")} == {"running"}


def test_an_up_that_is_interrupted_anywhere_leaves_what_the_next_completes(
    bay: Bay, project: Project
) -> None:
    names = ("a", "b", "c", "d")
    directory = project(stack("x", *names))
    compose = directory / "compose.yaml"
    for earlier, later in itertools.pairwise(names):
        text = compose.read_text()
        compose.write_text(
            text.replace(f"  {later}: {{", f"  {later}: {{depends_on: [{earlier}], ")
        )
    for seen in ("Creating", "Created", "Starting", "b-1  Started", "d-1  Starting"):
        with bay.started("up", "-d", cwd=directory) as up:
            assert up.stdout is not None
            while (line := up.stdout.readline()) and seen not in line:
                pass
            up.send_signal(signal.SIGINT)
            rest = up.stdout.read()
            status = up.wait(60)
        assert status in (0, 130), rest
        assert "Traceback" not in rest
        bay.ok("up", "-d", cwd=directory)
        assert bay("plan", cwd=directory).status == 0
        bay.ok("down", "-t", "0", cwd=directory)


def test_a_daemon_that_was_stopped_is_named_and_goes_on_where_it_was(
    bay: Bay, project: Project
) -> None:
    directory = project(stack("x", "web"))
    bay.ok("up", "-d", cwd=directory)
    pid = bay.daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        told = bay("ps", cwd=directory)
        assert told.status == 1
        assert f"the daemon (process {pid}) is stopped" in told.err
        assert f"kill -CONT {pid}" in told.err
    finally:
        os.kill(pid, signal.SIGCONT)
    assert len(bay.containers(directory)) == 1


def test_values_with_line_breaks_and_quotes_arrive_as_they_are(bay: Bay, project: Project) -> None:
    directory = project(
        "services:\n"
        "  web:\n"
        "    image: debian:bookworm\n"
        "    init: true\n"
        '    command: ["sh", "-c", "sleep 1000; :", "a b", "\\n"]\n'
        '    environment: {LINES_OF: "one\\ntwo\\n", QUOTED: "\'\\"$$HOME`", "ODD.NAME-x": ü}\n'
        '    labels: {"a b/c": "x\\ny"}\n'
        "    stop_grace_period: 0s\n"
    )
    bay.ok("up", "-d", cwd=directory)
    found = bay.ok("exec", "-T", "web", "env", "-0", cwd=directory).split("\0")
    assert {"LINES_OF=one\ntwo\n", "QUOTED='\"$HOME`", "ODD.NAME-x=ü"} <= set(found)
    assert bay("plan", cwd=directory).status == 0
    read = "cat /proc/[0-9]*/cmdline | tr '\\0' '|'"
    assert "|a b|\n|" in bay.ok("exec", "-T", "web", "sh", "-c", read, cwd=directory)
    assert bay.ok("exec", "-T", "web", "echo", "a\nb", cwd=directory) == "a\nb\n"


def test_a_container_that_forks_wildly_is_bounded_and_can_be_ended(
    bay: Bay, project: Project
) -> None:
    bomb = """[bash, -c, 'f() { f | f & }; f; while :; do sleep 1; done']"""
    directory = project(
        "services:\n"
        f"  bomb: {{image: debian:bookworm, init: true, command: {bomb}, pids_limit: 50}}\n"
        f"  other: {{{_SERVICE}}}\n"
    )
    bay.ok("up", "-d", cwd=directory)
    assert bay.ok("exec", "-T", "other", "echo", "fine", cwd=directory) == "fine\n"
    bay.ok("kill", "bomb", cwd=directory)
    states = {c["Service"]: c["State"] for c in bay.containers(directory).values()}
    assert states == {"bomb": "exited", "other": "running"}
