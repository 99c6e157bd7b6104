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

_LOOP = "while read -r line; do echo got $$line; done; echo end"
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
    bay: Bay, project: Callable[..., Path], eventually: Callable[..., None]
) -> None:
    directory = project(_PIPED)
    bay.ok("up", "-d", cwd=directory)

    with bay.started("attach", "--no-stdin", "web", cwd=directory) as watching:
        assert watching.stdout is not None
        for word in ("one", "two"):
            with bay.started("attach", "web", cwd=directory, stdin=f"{word}\n") as typing:
                eventually(lambda w=word: f"got {w}" in bay.ok("logs", cwd=directory), "it arrives")
                typing.send_signal(signal.SIGKILL)
            assert watching.stdout.readline() == f"got {word}\n"


def test_signals_go_to_the_container_and_its_exit_status_comes_back(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(
        "services:\n  web:\n    image: debian:bookworm\n"
        '    command: bash -c \'trap "echo caught; exit 7" TERM; echo ready;'
        " while :; do sleep 0.05; done'\n"
    )
    bay.ok("up", "-d", cwd=directory)

    with bay.started("attach", "web", cwd=directory) as attached:
        assert attached.stdout is not None
        # It may have been ready before; the signal is passed on in any case.
        bay.ok("logs", cwd=directory)
        while attached.poll() is None:
            attached.send_signal(signal.SIGTERM)
            try:
                attached.wait(0.5)
            except Exception:
                continue
        assert attached.returncode == 7


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
