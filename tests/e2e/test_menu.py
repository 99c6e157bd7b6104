"""The keys of `bay up` on a terminal."""

from __future__ import annotations

import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_exec import Terminal

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_STACK = """
services:
  web:
    image: debian:bookworm
    init: true
    stop_grace_period: 0s
    command: [bash, -c, "echo up; exec sleep 1000"]
    develop: {watch: [{path: ./files, target: /files, action: sync}]}
"""


@pytest.fixture
def stack(project: Callable[..., Path]) -> Path:
    directory = project(_STACK)
    (directory / "files").mkdir()
    return directory


@pytest.fixture
def up(bay: Bay, stack: Path) -> Iterator[Terminal]:
    terminal = Terminal(bay.command("up", "--no-color"), stack)
    yield terminal
    terminal.close()


def test_d_leaves_everything_running(bay: Bay, stack: Path, up: Terminal) -> None:
    up.wait_for("web-1  | up")
    up.wait_for("d Detach")
    up.type("x")
    up.type("d")

    up.wait_for("the containers go on")
    assert up.process.wait(30) == 0
    assert termios.tcgetattr(up.slave) == up.before
    (container,) = bay.containers(stack).values()
    assert container["State"] == "running"


def test_w_follows_files_and_no_more(
    bay: Bay, stack: Path, up: Terminal, eventually: Callable[..., None]
) -> None:
    def there(name: str) -> bool:
        return bay("exec", "-T", "web", "test", "-e", f"/files/{name}", cwd=stack).status == 0

    up.wait_for("w Enable Watch")
    up.type("w")
    up.wait_for("w Disable Watch")
    (stack / "files" / "one").touch()
    eventually(lambda: there("one"), "the file is in the container")

    up.seen = ""
    up.type("w")
    up.wait_for("w Enable Watch")
    up.process.send_signal(signal.SIGINT)
    up.wait_for("Gracefully stopping")
    assert up.process.wait(60) == 130
    assert termios.tcgetattr(up.slave) == up.before


def test_without_a_menu_keys_do_nothing(bay: Bay, stack: Path) -> None:
    terminal = Terminal(bay.command("up", "--no-color", "--menu=false"), stack)
    try:
        terminal.wait_for("web-1  | up")
        assert "Detach" not in terminal.seen
        assert termios.tcgetattr(terminal.slave) == terminal.before
    finally:
        terminal.close()
