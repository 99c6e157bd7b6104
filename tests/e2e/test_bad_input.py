"""What is wrong is said in one clear line, with status 1, and nothing is half made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay, Result

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


def _complaint(result: Result) -> str:
    """The line that says what is wrong."""
    return next(line for line in result.err.splitlines() if line.startswith("bay: "))


def _nothing_is_there(bay: Bay, directory: Path) -> None:
    assert bay.ok("-p", directory.name, "ps", "-aq") == ""
    assert bay.ok("-p", directory.name, "network", "ls", "-q") == ""
    assert bay.ok("-p", directory.name, "volume", "ls", "-q") == ""


def test_yaml_syntax(bay: Bay, project: Callable[..., Path]) -> None:
    directory = project("services:\n  web:\n    image: [debian\n    ports: {}\n")

    failed = bay("up", "-d", cwd=directory)

    assert failed.status == 1
    assert "compose.yaml:4:" in _complaint(failed)
    _nothing_is_there(bay, directory)


def test_an_unknown_key(bay: Bay, project: Callable[..., Path]) -> None:
    directory = project("services:\n  web:\n    imagee: debian:bookworm\n")

    failed = bay("up", "-d", cwd=directory)

    assert failed.status == 1
    assert "compose.yaml:3:" in failed.err
    assert "services.web" in failed.err
    assert "imagee" in failed.err
    assert "did you mean" in failed.err
    assert '"image"' in failed.err or "image?" in failed.err.replace("imagee", "")
    _nothing_is_there(bay, directory)


def test_several_mistakes_are_told_at_once(bay: Bay, project: Callable[..., Path]) -> None:
    directory = project(
        "services:\n  web:\n    imagee: a\n  store:\n    image: b\n    restart: [x]\n"
    )

    failed = bay("config", "-q", cwd=directory)

    assert failed.status == 1
    assert "compose.yaml:3:" in failed.err
    assert "compose.yaml:6:" in failed.err


def test_an_unknown_image(bay: Bay, project: Callable[..., Path]) -> None:
    directory = project("services:\n  web:\n    image: no-such-image:1\n")

    failed = bay("up", "-d", cwd=directory)

    assert failed.status == 1
    assert "no-such-image:1" in _complaint(failed)
    _nothing_is_there(bay, directory)


@contextmanager
def _listening(bay: Bay, port: int) -> Iterator[None]:
    program = (
        "import socket, sys; s = socket.create_server(('', int(sys.argv[1]))); "
        "print('ready', flush=True); s.accept()"
    )
    command = bay.host.inside(sys.executable, "-I", "-c", program, str(port))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        yield
        listener.kill()


def test_a_taken_port(bay: Bay, project: Callable[..., Path]) -> None:
    directory = project(
        "services:\n"
        "  web:\n"
        "    image: debian:bookworm\n"
        "    command: sleep 60\n"
        '    ports: ["8123:80"]\n'
    )

    with _listening(bay, 8123):
        failed = bay("up", "-d", cwd=directory)

    assert failed.status == 1
    assert "8123" in _complaint(failed)
    assert "running" not in {c["State"] for c in bay.containers(directory).values()}
    bay.ok("up", "-d", cwd=directory)
    assert {c["State"] for c in bay.containers(directory).values()} == {"running"}


@pytest.mark.parametrize(
    ("dockerfile", "line", "words"),
    [
        ("FROM debian:bookworm\nRUNN true\n", 2, "RUNN"),
        ("FROM debian:bookworm\n\nRUN echo broken && false\n", 3, "broken && false"),
        ("FROM debian:bookworm\nCOPY no-such-file /\n", 2, "no-such-file"),
    ],
)
def test_a_dockerfile_error(
    bay: Bay, project: Callable[..., Path], dockerfile: str, line: int, words: str
) -> None:
    directory = project("services:\n  web:\n    build: .\n", Dockerfile=dockerfile)

    failed = bay("up", "-d", cwd=directory)

    assert failed.status == 1
    assert f"Dockerfile:{line}: " in _complaint(failed)
    assert words in failed.err
    _nothing_is_there(bay, directory)


def test_a_command_that_the_image_does_not_have(bay: Bay, project: Callable[..., Path]) -> None:
    directory = project(
        "services:\n  web:\n    image: debian:bookworm\n    command: [no-such-command]\n"
    )

    failed = bay("up", "-d", cwd=directory)

    assert failed.status == 127
    assert "no-such-command" in _complaint(failed)


def test_a_cycle_is_named(bay: Bay, project: Callable[..., Path]) -> None:
    directory = project(
        "services:\n"
        "  a: {image: debian:bookworm, depends_on: [b]}\n"
        "  b: {image: debian:bookworm, depends_on: [a]}\n"
    )

    failed = bay("up", "-d", cwd=directory)

    assert failed.status == 1
    assert "a -> b -> a" in failed.err.replace("→", "->") or "b -> a -> b" in failed.err.replace(
        "→", "->"
    )
    _nothing_is_there(bay, directory)


def test_no_file(bay: Bay, tmp_path: Path) -> None:
    failed = bay("up", "-d", cwd=tmp_path)

    assert failed.status == 1
    assert "compose.yaml" in failed.err


def test_an_option_that_does_not_exist(bay: Bay, tmp_path: Path) -> None:
    failed = bay("up", "--detatch", cwd=tmp_path)

    assert failed.status == 1
    assert "--detach" in failed.err
    assert len(failed.err.splitlines()) <= 2
