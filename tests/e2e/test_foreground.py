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
