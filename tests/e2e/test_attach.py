"""`bay attach`, and what `bay up` does in the foreground when containers end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_exec import Terminal

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

# It says something all the time, so that who attaches knows that it has.
_LOOP = "(while sleep 0.1; do echo tick; done) & while read -r line; do echo got $$line; done"
_PIPED = (
    f"services:\n  web: {{image: debian:bookworm, stdin_open: true, command: sh -c '{_LOOP}'}}\n"
)
_TYPED = (
    "services:\n"
    "  web:\n"
    "    image: debian:bookworm\n"
    "    tty: true\n"
    "    stdin_open: true\n"
    "    command: bash -c 'while read -r line; do echo got $$line $$(stty size); done'\n"
)


def test_what_is_typed_arrives_and_the_detach_keys_leave_it_running(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(_TYPED)
    bay.ok("up", "-d", cwd=directory)
    terminal = Terminal(bay.command("attach", "web"), directory)
    try:
        terminal.type("hello\r")
        terminal.wait_for("got hello 40 100")
        terminal.type("\x10\x11")
        terminal.wait_for("detached")
        assert terminal.process.wait(30) == 0
    finally:
        terminal.close()

    (container,) = bay.containers(directory).values()
    assert container["State"] == "running"


def test_output_and_input_are_piped_through_without_ending_the_container_s_input(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(_PIPED)
    bay.ok("up", "-d", cwd=directory)

    with bay.started("attach", "--no-stdin", "web", cwd=directory) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "tick\n"
        for word in ("one", "two"):
            with bay.started("attach", "web", cwd=directory, stdin=f"{word}\n") as typing:
                while (line := watching.stdout.readline()) == "tick\n":
                    continue
                assert line == f"got {word}\n"
                typing.send_signal(signal.SIGKILL)


def test_signals_go_to_the_container_and_its_exit_status_comes_back(
    bay: Bay, project: Callable[..., Path]
) -> None:
    script = 'trap "exit 7" TERM; while :; do echo tick; sleep 0.05; done'
    directory = project(
        f"services:\n  web: {{image: debian:bookworm, command: [bash, -c, '{script}']}}\n"
    )
    bay.ok("up", "-d", cwd=directory)

    with bay.started("attach", "web", cwd=directory) as attached:
        assert attached.stdout is not None
        assert attached.stdout.readline() == "tick\n"
        attached.send_signal(signal.SIGTERM)
        assert attached.wait(30) == 7


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (("--abort-on-container-exit",), 0),
        (("--abort-on-container-failure",), 3),
        (("--exit-code-from", "slow"), 143),
    ],
)
def test_the_end_of_one_container_can_end_them_all(
    bay: Bay, project: Callable[..., Path], flags: tuple[str, ...], status: int
) -> None:
    directory = project(
        "services:\n"
        "  good: {image: debian:bookworm, command: 'true'}\n"
        "  bad: {image: debian:bookworm, command: sh -c 'sleep 1; exit 3'}\n"
        "  slow: {image: debian:bookworm, init: true, command: sleep 1000}\n"
    )

    result = bay("up", *flags, cwd=directory)

    assert result.status == status, str(result)
    assert {c["State"] for c in bay.containers(directory).values()} == {"exited"}


def test_only_the_output_that_is_asked_for_is_shown(bay: Bay, project: Callable[..., Path]) -> None:
    directory = project(
        "services:\n"
        "  one: {image: debian:bookworm, command: echo first}\n"
        "  two: {image: debian:bookworm, command: echo second}\n"
        "  three: {image: debian:bookworm, command: echo third, attach: false}\n"
    )

    assert "second" not in (out := bay.ok("up", "--no-attach", "two", cwd=directory))
    assert "first" in out and "third" not in out
    out = bay.ok("up", "--attach", "three", "--force-recreate", cwd=directory)
    assert "third" in out and "first" not in out
    assert bay("up", "-d", "--attach", "one", cwd=directory).status == 1


def test_a_command_left_in_the_background_goes_on(
    bay: Bay, project: Callable[..., Path], eventually: Callable[..., None]
) -> None:
    directory = project("services:\n  web: {image: debian:bookworm, command: sleep 1000}\n")
    bay.ok("up", "-d", cwd=directory)

    assert bay.ok("exec", "-d", "web", "sh", "-c", "sleep 0.3; echo > /done", cwd=directory) == ""

    eventually(lambda: bay("exec", "web", "test", "-e", "/done", cwd=directory).status == 0, "done")
