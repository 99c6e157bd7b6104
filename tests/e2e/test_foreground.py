"""`bay up` without -d shows the output, and Ctrl-C stops the stack."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


def test_it_follows_until_the_last_container_has_ended(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(
        "services:\n  once: {image: debian:bookworm, command: [sh, -c, 'echo done; exit 3']}\n"
    )

    shown = bay("up", cwd=directory)

    assert shown.status == 0
    assert "once-1  | done\n" in shown.out
    assert "once-1 exited with code 3" in shown.out


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_stops_and_a_second_one_kills(
    bay: Bay, project: Callable[..., Path], presses: int
) -> None:
    ignore = "trap '' TERM; " if presses == 2 else "trap 'exit 0' TERM; "
    directory = project(
        "services:\n"
        "  web:\n"
        "    image: debian:bookworm\n"
        "    stop_grace_period: 100s\n"
        f'    command: [bash, -c, "{ignore}echo up; while :; do sleep 0.1; done"]\n'
    )

    with bay.started("up", cwd=directory) as up:
        assert up.stdout is not None
        while up.stdout.readline() != "web-1  | up\n":
            pass
        up.send_signal(signal.SIGINT)
        while "Gracefully stopping" not in up.stdout.readline():
            pass
        if presses == 2:
            up.stdout.readline()  # the container is being stopped
            up.send_signal(signal.SIGINT)
        assert up.wait(60) == 130

    (container,) = bay.containers(directory).values()
    assert container["State"] == "exited"
    assert container["ExitCode"] == (137 if presses == 2 else 0)


def test_ctrl_c_while_it_comes_up_ends_at_once_and_says_what_stands(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(
        "services:\n"
        "  store:\n"
        "    image: debian:bookworm\n"
        "    init: true\n"
        "    command: sleep 1000\n"
        '    healthcheck: {test: ["CMD", "false"], interval: 1s, retries: 1000}\n'
        "  web:\n"
        "    image: debian:bookworm\n"
        "    depends_on: {store: {condition: service_healthy}}\n"
    )

    with bay.started("up", "-d", cwd=directory) as up:
        assert up.stdout is not None
        while "Waiting" not in up.stdout.readline():
            pass
        up.send_signal(signal.SIGINT)
        assert up.wait(20) == 130
        assert "bay ps shows it" in up.stdout.read()

    states = {c["Service"]: c["State"] for c in bay.containers(directory).values()}
    assert states["store"] == "running"
    assert states.get("web") != "running"
    bay.ok("down", "-t", "0", cwd=directory)
    assert bay.containers(directory) == {}
