"""What follows from a restart, a stop and an exec, and what is told of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_STACK = """
services:
  app: {image: debian:bookworm, init: true, command: sleep 1000}
  proxy: {image: debian:bookworm, init: true, command: sleep 1000, network_mode: "service:app"}
  deaf: {image: debian:bookworm, command: sleep 1000, stop_grace_period: 200ms}
"""


@pytest.fixture(scope="module")
def stack(bay: Bay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("lifecycle")
    (directory / "compose.yaml").write_text(_STACK)
    bay.ok("up", "-d", cwd=directory)
    yield directory
    bay.ok("down", "-t", "0", cwd=directory)


def happened(bay: Bay, stack: Path, since: float, *services: str) -> list[dict[str, Any]]:
    """The events of the containers from `since` until now."""
    window = ("--since", f"{since:.6f}", "--until", f"{time.time():.6f}")
    lines = bay.ok("events", "--json", *window, *services, cwd=stack).splitlines()
    return [json.loads(line) for line in lines]


def actions(events: list[dict[str, Any]], service: str) -> list[str]:
    return [event["action"] for event in events if event["service"] == service]


def test_a_restart_takes_along_who_shares_the_network_unless_told_otherwise(
    bay: Bay, stack: Path
) -> None:
    since = time.time()
    bay.ok("restart", "-t", "0", "--no-deps", "app", cwd=stack)
    alone = happened(bay, stack, since)
    assert {event["service"] for event in alone} == {"app"}

    since = time.time()
    bay.ok("restart", "-t", "0", "app", cwd=stack)
    both = happened(bay, stack, since)
    order = [(e["service"], e["action"]) for e in both if e["action"] in ("stop", "start")]
    assert order == [("proxy", "stop"), ("app", "stop"), ("app", "start"), ("proxy", "start")]


def test_a_stop_tells_of_each_signal_and_why_it_took_its_grace(bay: Bay, stack: Path) -> None:
    since = time.time()
    done = bay("stop", "deaf", cwd=stack)

    assert done.status == 0, str(done)
    (said,) = [line for line in done.err.splitlines() if line.startswith("warning:")]
    assert f"{stack.name}-deaf-1 was killed after 0.2 s" in said
    assert "does not handle SIGTERM" in said and "init: true" in said
    events = happened(bay, stack, since, "deaf")
    assert actions(events, "deaf") == ["kill", "kill", "die", "stop"]
    assert [e["attributes"]["signal"] for e in events[:2]] == [15, 9]
    assert "warning:" not in bay("stop", "-t", "0", "deaf", cwd=stack).err
    bay.ok("start", "deaf", cwd=stack)


def test_a_kill_is_told_before_the_end_that_it_brings(bay: Bay, stack: Path) -> None:
    since = time.time()
    bay.ok("kill", "deaf", cwd=stack)

    assert actions(happened(bay, stack, since), "deaf") == ["kill", "die"]
    bay.ok("start", "deaf", cwd=stack)


def test_execs_are_told_as_docker_tells_them(
    bay: Bay, stack: Path, eventually: Callable[..., None]
) -> None:
    since = time.time()
    bay("exec", "-T", "deaf", "sh", "-c", "exit 3", cwd=stack)

    eventually(lambda: len(happened(bay, stack, since, "deaf")) >= 3, "three events are there")
    made, started, died = happened(bay, stack, since, "deaf")
    assert made["action"] == "exec_create: sh -c exit 3"
    assert started["action"] == "exec_start: sh -c exit 3"
    assert died["action"] == "exec_die" and died["attributes"]["exitCode"] == 3
    assert len({event["attributes"]["execID"] for event in (made, started, died)}) == 1


def test_a_detached_exec_may_have_a_terminal_that_outlives_the_command(
    bay: Bay, stack: Path, eventually: Callable[..., None]
) -> None:
    shell = "tty > /said; until [ -e /go ]; do sleep 0.05; done; echo to the terminal; tty >> /said"
    bay.ok("exec", "-d", "-t", "deaf", "sh", "-c", shell, cwd=stack)
    bay.ok("exec", "-d", "deaf", "touch", "/go", cwd=stack)

    said = ("exec", "-T", "deaf", "cat", "/said")
    eventually(lambda: bay(*said, cwd=stack).out.count("/dev/pts/") == 2, "it has gone on")
    refused = bay("exec", "-t", "deaf", "true", cwd=stack)
    assert refused.status == 1 and "no terminal" in refused.err


def test_orphans_are_shown_unless_told_otherwise_and_a_kill_can_take_them(
    bay: Bay, stack: Path
) -> None:
    services = ("--format", "{{.Service}}")
    compose = stack / "compose.yaml"
    compose.write_text("\n".join(line for line in _STACK.splitlines() if "deaf" not in line))

    assert bay.ok("ps", *services, cwd=stack).split() == ["app", "deaf", "proxy"]
    assert bay.ok("ps", "--orphans=false", *services, cwd=stack).split() == ["app", "proxy"]
    bay.ok("kill", "--remove-orphans", "proxy", cwd=stack)
    assert bay.ok("ps", "-a", *services, cwd=stack).split() == ["app", "proxy"]
    compose.write_text(_STACK)
    bay.ok("up", "-d", cwd=stack)


def test_a_stop_of_what_has_only_just_started_is_heard_once_it_listens(
    bay: Bay, tmp_path: Path
) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        "  slow:\n"
        "    image: debian:bookworm\n"
        "    stop_grace_period: 1000s\n"
        '    command: [bash, -c, "echo up; until [ -e /go ]; do sleep 0.02; done; '
        "trap 'exit 7' TERM; while :; do sleep 0.02; done\"]\n"
    )
    bay.ok("up", "-d", cwd=tmp_path)
    with bay.started("stop", cwd=tmp_path) as stop:
        assert stop.stdout is not None
        while "Stopping" not in stop.stdout.readline():
            pass
        bay.ok("exec", "slow", "touch", "/go", cwd=tmp_path)
        assert stop.wait(90) == 0

    (container,) = bay.containers(tmp_path).values()
    assert container["ExitCode"] == 7
    bay.ok("down", "-t", "0", cwd=tmp_path)
