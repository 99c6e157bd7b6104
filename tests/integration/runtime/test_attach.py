"""Attaching to a container's first process."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

import pytest

from runtime.container.attach import PATIENCE
from runtime.container.config import ExecConfig
from runtime.container.sessions import AttachSession, open_attach
from runtime.errors import InvalidState, LauncherError
from runtime.linux import terminals
from tests.integration.runtime.yard import Yard, until


def attach(yard: Yard, id: str, *, stdin: bool = False, complete: bool = False) -> AttachSession:
    socket = str(yard.containers.monitor_socket(id))
    return open_attach(socket, stdin=stdin, complete=complete)


def read_until(fd: int | None, text: bytes, seconds: float = 20) -> bytes:
    """Read until `text` has come; b"" as text reads to the end."""
    assert fd is not None
    got = b""
    while not text or text not in got:
        assert select.select([fd], [], [], seconds)[0], f"{text!r} does not come: {got!r}"
        block = os.read(fd, 65536)
        got += block
        if not block:
            assert not text, f"the end instead of {text!r}: {got!r}"
            break
    return got


@pytest.fixture
def echo(shared: Yard) -> Iterator[str]:
    id = shared.start("sh", "-c", "while read l; do echo got $l; done; exit 5", stdin_open=True)
    yield id
    shared.containers.delete(id, force=True)


def test_every_client_sees_what_is_printed_and_each_may_type(shared: Yard, echo: str) -> None:
    with (
        attach(shared, echo, stdin=True) as first,
        attach(shared, echo, stdin=True) as second,
    ):
        assert first.stdin is not None and second.stdin is not None
        os.write(first.stdin, b"one\n")
        for session in (first, second):
            assert read_until(session.stdout, b"\n") == b"got one\n"
        os.write(second.stdin, b"two\n")
        for session in (first, second):
            assert read_until(session.stdout, b"\n") == b"got two\n"
    assert "got two" in shared.log(echo)


def test_a_client_that_leaves_takes_no_input_with_it(shared: Yard, echo: str) -> None:
    attach(shared, echo, stdin=True).close()
    with attach(shared, echo, stdin=True) as session:
        assert session.stdin is not None
        os.write(session.stdin, b"still\n")
        assert read_until(session.stdout, b"\n") == b"got still\n"


def test_the_end_of_input_is_passed_on_and_the_rest_of_the_output_still_comes(
    shared: Yard, echo: str
) -> None:
    with attach(shared, echo, stdin=True) as session:
        assert session.stdin is not None
        os.write(session.stdin, b"last\n")
        os.close(session.stdin)
        session.stdin = None
        session.end_input()
        assert read_until(session.stdout, b"") == b"got last\n"
        assert session.wait() == 5


def test_without_input_none_is_handed_over(shared: Yard, echo: str) -> None:
    with attach(shared, echo) as session:
        assert session.stdin is None
        session.signal(9)
        assert session.wait() == 137


def test_a_terminal_is_shared_and_takes_its_size_from_a_client(shared: Yard) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do read l && echo got $l; done"
    id = shared.start("sh", "-c", script, tty=True, stdin_open=True)
    with attach(shared, id, stdin=True) as session, attach(shared, id) as other:
        assert session.terminal is not None and session.stderr is None
        shared.wait_for_output(id, "ready")
        terminals.resize(session.terminal, rows=11, columns=77)
        os.write(session.terminal, b"x\n")
        assert b"got x" in read_until(session.stdout, b"got x")
        assert b"got x" in read_until(other.stdout, b"got x")
        assert terminals.size(session.terminal) == (11, 77)
    shared.containers.delete(id, force=True)


def test_nobody_can_attach_to_what_has_ended(shared: Yard) -> None:
    id = shared.start("true")
    shared.finish(id)
    with pytest.raises(InvalidState):
        attach(shared, id)
    shared.containers.delete(id)


def test_a_client_that_does_not_read_is_let_go_and_the_container_goes_on(shared: Yard) -> None:
    id = shared.start("sh", "-c", "read l; yes | head -c 4000000; echo end", stdin_open=True)
    with attach(shared, id, stdin=True) as session:
        assert session.stdin is not None
        os.write(session.stdin, b"go\n")
        assert shared.finish(id).exit_code == 0
        with pytest.raises(LauncherError, match="fell behind"):
            session.wait()
    shared.containers.delete(id)


def test_a_complete_client_gets_all_however_slow_it_is(shared: Yard) -> None:
    size = 6 * PATIENCE
    id = shared.start("sh", "-c", f"read l; yes | head -c {size}", stdin_open=True)
    with attach(shared, id, stdin=True, complete=True) as session:
        assert session.stdin is not None
        os.write(session.stdin, b"go\n")
        log = shared.containers.log_path(id)
        until(lambda: log.exists() and log.stat().st_size > PATIENCE, what="output is kept")
        assert shared.containers.get(id).status == "running"
        assert len(read_until(session.stdout, b"")) == size
        assert session.wait() == 0
    shared.containers.delete(id)


def test_one_that_awaits_an_attach_keeps_even_a_short_output_for_it(shared: Yard) -> None:
    id = shared.start("sh", "-c", "printf '\\377\\000x'; exit 3", await_attach=True)
    assert shared.containers.get(id).status == "running"
    with attach(shared, id, complete=True) as session:
        assert read_until(session.stdout, b"") == b"\xff\x00x"
        assert session.wait() == 3
    shared.finish(id)
    shared.containers.delete(id)


def test_one_that_awaits_an_attach_in_vain_ends_all_the_same(shared: Yard) -> None:
    began = time.monotonic()
    id = shared.start("sh", "-c", "echo out; exit 3", await_attach=True)
    assert shared.finish(id, seconds=30).exit_code == 3
    assert time.monotonic() - began > 5
    assert shared.log(id) == "out\n"
    shared.containers.delete(id)


def test_a_detached_exec_has_the_null_device_and_goes_on_alone(shared: Yard, echo: str) -> None:
    script = "ls -l /proc/self/fd > /tmp/fds; echo lost; echo lost >&2; sleep 0.2; echo > /tmp/done"
    shared.containers.exec(echo, ExecConfig(argv=("sh", "-c", script), detach=True)).close()
    until(lambda: shared.exec(echo, "test", "-e", "/tmp/done").exit_code == 0, what="it goes on")
    assert shared.exec(echo, "grep", "-c", "/dev/null", "/tmp/fds").output.strip() in ("2", "3")
