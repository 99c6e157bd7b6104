"""A socket of one's own that leads to an agent's."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.build.agent_relay import relayed
from runtime.build.steps import RunStep
from tests.unit.runtime.build.workshop import Workshop


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """An agent that answers each message with it in capitals, until the client is gone."""
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            while True:
                client, _ = listener.accept()
                with client:
                    while message := client.recv(1000):
                        if message == b"end":
                            return
                        client.sendall(message.upper())

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        with ask(path, b"end"):
            thread.join()


def ask(path: str, message: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.sendall(message)
    return client


def test_messages_go_to_and_fro_by_a_socket_of_its_own_mode(tmp_path: Path, agent: str) -> None:
    own = tmp_path / "own"
    before, mode = len(os.listdir("/proc/self/fd")), os.stat(agent).st_mode
    with relayed(agent, own, uid=7, gid=8, mode=0o660):
        status = own.stat()
        assert stat.S_IMODE(status.st_mode) == 0o660
        if os.geteuid() == 0:
            assert (status.st_uid, status.st_gid) == (7, 8)
        for _ in range(3):
            with ask(str(own), b"hello") as client:
                assert client.recv(1000) == b"HELLO"
                client.sendall(b"again")
                assert client.recv(1000) == b"AGAIN"
        left_open = ask(str(own), b"last")
        assert left_open.recv(1000) == b"LAST"
    assert left_open.recv(1000) == b""
    left_open.close()
    assert os.stat(agent).st_mode == mode
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_agent_that_is_gone_ends_the_conversation(tmp_path: Path) -> None:
    own = tmp_path / "own"
    with (
        relayed(str(tmp_path / "absent"), own, uid=0, gid=0, mode=0o600),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(str(own))
        assert client.recv(1000) == b""


def test_a_step_that_is_another_user_s_gets_a_socket_of_its_own(tmp_path: Path, agent: str) -> None:
    modes = []

    def script(step: RunStep, output: Callable[[bytes], None]) -> int:
        for mount in step.mounts:
            modes.append((mount.source == agent, stat.S_IMODE(os.stat(mount.source).st_mode)))
            with ask(mount.source, b"hello") as client:
                assert client.recv(1000) == b"HELLO"
        return 0

    os.chmod(agent, 0o700)
    place = tmp_path / "shop"
    place.mkdir()
    shop = Workshop(place, script)
    shop.build("FROM scratch\nRUN --mount=type=ssh x\n", ssh={"default": agent})
    shop.build("FROM scratch\nRUN --mount=type=ssh,mode=0666 x\n", ssh={"default": agent})
    assert modes == [(True, 0o700), (False, 0o666)]
