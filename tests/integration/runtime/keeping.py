"""A keeper in the process of a test, so that it can be looked into and made to fail."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from runtime.container import starter
from runtime.container.keeper import Keeper
from runtime.errors import InvalidState
from runtime.linux import process, sockets
from tests.integration.runtime.yard import Yard, until


@contextmanager
def keeping(yard: Yard, launcher: socket.socket | None = None) -> Iterator[Keeper]:
    """A keeper that ends all that it has."""
    keeper = Keeper(yard.instance, launcher, start=starter.run, start_exec=starter.run_exec)
    process.reap_children()
    try:
        yield keeper
    finally:
        for state in yard.containers.list():
            if state.status == "running":
                # One may have ended, and not be recorded.
                with suppress(InvalidState):
                    yard.containers.signal(state.id, signal.SIGKILL)
        turn_until(keeper, lambda: not keeper.busy)
        keeper.close()


def turn_until(keeper: Keeper, condition: Callable[[], object]) -> None:
    def turned() -> object:
        keeper.turn(0.05)
        return condition()

    until(turned, what="the keeper has done it")


def ask(keeper: Keeper, yard: Yard, *argv: str, **settings: Any) -> tuple[str, dict[str, Any]]:
    """Create a container and have it started: its id, and the answer."""
    id = yard.create(*(argv or ("sleep", "1000")), **settings)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    keeper.start({"id": id}, theirs)
    with ours:
        return id, answer_on(keeper, ours)


def begin(keeper: Keeper, yard: Yard, *argv: str, **settings: Any) -> str:
    id, answer = ask(keeper, yard, *argv, **settings)
    assert "started" in answer
    return id


def hear_on(keeper: Keeper, connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What the keeper says next on a connection, and the descriptors that come with it."""
    turn_until(keeper, lambda: bool(select.select([connection], [], [], 0)[0]))
    return sockets.receive(connection)


def answer_on(keeper: Keeper, connection: socket.socket) -> dict[str, Any]:
    """What the keeper says next on a connection; its descriptors are closed."""
    answer, fds = hear_on(keeper, connection)
    for fd in fds:
        os.close(fd)
    return answer


def client(yard: Yard, id: str, request: dict[str, Any]) -> socket.socket:
    """A connection to a container's monitor that has sent `request`."""
    connection = sockets.connect(str(yard.containers.monitor_socket(id)))
    sockets.send(connection, request)
    return connection


def execute(keeper: Keeper, yard: Yard, id: str, *argv: str, **settings: Any) -> dict[str, Any]:
    """Run a command beside a container's first process: the last that is said of it."""
    with client(yard, id, {"op": "exec", "config": {"argv": argv, **settings}}) as connection:
        answer, fds = hear_on(keeper, connection)
        try:
            # Without our end of its terminal it would be hung up on before it has ended.
            return answer if "error" in answer else answer_on(keeper, connection)
        finally:
            for fd in fds:
                os.close(fd)
