"""`bay exec` on a terminal and without one."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

_SLEEPER = "services:\n  web: {image: debian:bookworm, init: true, command: sleep 1000}\n"


@pytest.fixture
def stack(bay: Bay, project: Callable[..., Path]) -> Path:
    directory = project(_SLEEPER)
    bay.ok("up", "-d", cwd=directory)
    return directory


class Terminal:
    """A terminal with `bay exec` on it."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self._master, slave = os.openpty()
        self.resize(40, 100)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(command, cwd=cwd, stdin=slave, stdout=slave, stderr=slave)
        self.slave = slave
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        while text not in self.seen:
            self.seen += os.read(self._master, 4096).decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self._master)


@pytest.fixture
def terminal(bay: Bay, stack: Path) -> Iterator[Terminal]:
    shell = "trap 'echo now $(stty size)' WINCH; echo size $(stty size); "
    shell += "read -r line; echo got $line; exit 5"
    opened = Terminal(bay.command("exec", "web", "bash", "-c", shell), stack)
    yield opened
    opened.close()


def test_a_terminal_is_passed_on_with_its_size_and_its_keys(terminal: Terminal) -> None:
    terminal.wait_for("size 40 100")
    terminal.type("hello\r")
    terminal.wait_for("got hello")

    assert terminal.process.wait(30) == 5
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_a_new_size_arrives(terminal: Terminal) -> None:
    terminal.wait_for("size 40 100")
    terminal.resize(50, 120)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.type("\r")
    terminal.wait_for("now 50 120")


def test_ctrl_c_goes_to_the_command(bay: Bay, stack: Path) -> None:
    shell = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    terminal = Terminal(bay.command("exec", "web", "bash", "-c", shell), stack)
    try:
        terminal.wait_for("ready")
        terminal.type("\x03")
        terminal.wait_for("caught")
        assert terminal.process.wait(30) == 9
    finally:
        terminal.close()


def test_much_input_and_output_passes_unchanged(bay: Bay, stack: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(50_000))

    assert bay.ok("exec", "-T", "web", "cat", cwd=stack, stdin=text) == text


def test_input_that_nobody_reads_holds_nothing_up(bay: Bay, stack: Path) -> None:
    text = "x" * 1_000_000

    assert bay.ok("exec", "-T", "web", "echo", "done", cwd=stack, stdin=text) == "done\n"


def test_user_and_privileges_are_those_asked_for(bay: Bay, stack: Path) -> None:
    assert bay.ok("exec", "-u", "www-data", "web", "id", "-un", cwd=stack) == "www-data\n"
    capabilities = ("exec", "web", "grep", "CapEff", "/proc/self/status")
    usual = bay.ok(*capabilities, cwd=stack)
    full = bay.ok(capabilities[0], "--privileged", *capabilities[1:], cwd=stack)
    assert int(full.split()[1], 16) > int(usual.split()[1], 16)


def test_a_signal_that_ends_the_command_shows_in_the_status(bay: Bay, stack: Path) -> None:
    assert bay("exec", "web", "sh", "-c", "kill -9 $$", cwd=stack).status == 137


def test_a_replica_is_chosen_by_its_number(bay: Bay, stack: Path) -> None:
    bay.ok("up", "-d", "--scale", "web=2", cwd=stack)

    first = bay.ok("exec", "web", "hostname", cwd=stack)
    second = bay.ok("exec", "--index", "2", "web", "hostname", cwd=stack)

    assert first != second
    assert bay("exec", "--index", "3", "web", "true", cwd=stack).status == 1
