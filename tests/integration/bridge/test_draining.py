"""Backends that get no new connections lose their old ones in peace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from bridge import draining
from bridge.config import Network, PublishedPort
from bridge.draining import drain
from tests.integration.bridge.lab import LAN_HOST, Lab, Place, eventually

PORT = PublishedPort(container_port=80, host_port=8080)
SERVICE = "shop/web"


class Server:
    """One generation of a replica: answers with its name, slowly, and knows who was cut off."""

    def __init__(self, place: Place, name: str) -> None:
        self._name = name.encode()
        self._listener = place.socket(socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("0.0.0.0", 80))
        self._listener.listen(512)
        self._listener.settimeout(None)
        self._stopping, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        poll = select.epoll()
        poll.register(self._listener, select.EPOLLIN)
        poll.register(self._stopping, select.EPOLLIN)
        clients: dict[int, socket.socket] = {}
        with poll:
            while True:
                for fd, _events in poll.poll():
                    if fd == self._stopping:
                        for client in clients.values():
                            client.close()
                        return
                    if fd == self._listener.fileno():
                        client, _peer = self._listener.accept()
                        clients[client.fileno()] = client
                        poll.register(client, select.EPOLLIN)
                        continue
                    with contextlib.suppress(OSError):
                        if clients[fd].recv(100) == b"?":
                            clients[fd].sendall(self._name)
                            continue
                    clients.pop(fd).close()

    def close(self) -> None:
        """What is connected or waits to be is cut off."""
        os.write(self._stop, b".")
        self._thread.join()
        self._listener.close()
        for fd in (self._stop, self._stopping):
            os.close(fd)


@contextlib.contextmanager
def serving(place: Place, name: str) -> Iterator[Server]:
    server = Server(place, name)
    try:
        yield server
    finally:
        server.close()


def replicas(lab: Lab) -> tuple[Network, Place, Place]:
    network = lab.network("front")
    return network, lab.container("blue", network), lab.container("green", network)


def connected(place: Place, address: str, name: bytes) -> socket.socket:
    client = place.socket(socket.SOCK_STREAM)
    client.connect((address, 8080))
    client.sendall(b"?")
    assert client.recv(100) == name
    return client


def still_open(lab: Lab, sandbox_id: str, count: int) -> bool:
    return lab.networks.connections(sandbox_id) == count


def test_connections_to_a_backend_are_counted_until_they_end(lab: Lab) -> None:
    _network, blue, green = replicas(lab)
    neighbour = lab.neighbour()
    with serving(blue, "blue"), serving(green, "green"):
        lab.networks.balance(SERVICE, [PORT], ["blue"])
        clients = [
            connected(lab.host, "127.0.0.1", b"blue"),
            connected(lab.host, LAN_HOST, b"blue"),
            connected(neighbour, LAN_HOST, b"blue"),
        ]
        direct = lab.host.socket(socket.SOCK_STREAM)
        direct.connect((blue.address, 80))  # by no published port
        assert lab.networks.connections("blue") == 3
        assert lab.networks.connections("green") == 0
        lab.networks.balance(SERVICE, [PORT], ["green"])
        assert lab.networks.connections("blue") == 3
        with connected(neighbour, LAN_HOST, b"green"):
            assert lab.networks.connections("green") == 1
        for left in (2, 1, 0):
            clients.pop().close()
            eventually(partial(still_open, lab, "blue", left), "it is noticed")
        assert lab.networks.connections("nobody") == 0


def test_a_drain_ends_with_the_last_connection(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel tells: nobody looks again by himself.
    monkeypatch.setattr(draining, "_LOOK_AGAIN", 3600.0)
    _network, blue, green = replicas(lab)
    neighbour = lab.neighbour()

    async def run() -> None:
        clients = [connected(neighbour, LAN_HOST, b"blue") for _ in range(5)]
        lab.networks.balance(SERVICE, [PORT], ["green"])
        drained = asyncio.create_task(drain(lab.networks, "blue", timeout=3600))
        assert await drain(lab.networks, "blue", timeout=0.1) == 5
        for client in clients[1:]:
            client.close()
        await asyncio.to_thread(eventually, partial(still_open, lab, "blue", 1), "four are gone")
        assert await drain(lab.networks, "blue", timeout=0.3) == 1
        assert not drained.done()
        clients[0].sendall(b"?")
        assert clients[0].recv(100) == b"blue"  # it goes on to the very end
        clients[0].close()
        assert await drained == 0

    with serving(blue, "blue"), serving(green, "green"):
        lab.networks.balance(SERVICE, [PORT], ["blue"])
        asyncio.run(run())
        assert asyncio.run(drain(lab.networks, "nobody", timeout=30)) == 0


CLIENT = """
import asyncio, json, sys, time
address, port, most, pause = sys.argv[1], 8080, int(sys.argv[2]), float(sys.argv[3])
done, failures = {}, []
stop = False

async def listen():
    global stop
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    stop = True

async def client():
    while not stop:
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(address, port)
                writer.write(b"?")
                answer = await reader.readexactly(5)
                writer.close()
                await writer.wait_closed()
            done[answer.decode()] = done.get(answer.decode(), 0) + 1
        except (OSError, EOFError, TimeoutError) as exc:
            failures.append(repr(exc))
        await asyncio.sleep(pause)

async def main():
    print("ready", flush=True)
    await asyncio.gather(listen(), *(client() for _ in range(most)))
    print(json.dumps({"done": done, "failures": failures}))

asyncio.run(main())
"""


def test_no_connection_is_lost_in_fifty_switches_under_load(lab: Lab) -> None:
    """Short connections from the host, its loopback and a neighbour, while generation after
    generation takes over; each listener closes for good when it is drained."""
    _network, *places = replicas(lab)
    neighbour = lab.neighbour()
    clients: list[subprocess.Popen[str]] = []

    def start_clients() -> None:
        """Once somebody listens: what comes before that is refused with good reason."""
        for place, address in (
            (lab.host, "127.0.0.1"),
            (lab.host, LAN_HOST),
            (neighbour, LAN_HOST),
        ):
            prefix = [] if place.path is None else ["nsenter", f"--net={place.path}"]
            clients.append(
                subprocess.Popen(
                    [*prefix, sys.executable, "-c", CLIENT, address, "3", "0.004"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )

    async def switch() -> None:
        with contextlib.ExitStack() as stack:
            old = Server(places[0], "00000")
            lab.networks.balance(SERVICE, [PORT], ["blue"])
            start_clients()
            for client in clients:
                assert client.stdout is not None
                assert client.stdout.readline() == "ready\n"
            for generation in range(1, 51):
                name, before = (("blue", "green"), ("green", "blue"))[generation % 2]
                new = Server(places[generation % 2], f"{generation:05}")
                lab.networks.balance(SERVICE, [PORT], [name])
                assert await drain(lab.networks, before, timeout=20) == 0
                old.close()
                old = new
            stack.callback(old.close)
            for client in clients:
                assert client.stdin is not None
                client.stdin.close()
                client.stdin = None
            for client in clients:
                output, _ = await asyncio.to_thread(client.communicate, timeout=30)
                results.append(json.loads(output))

    results: list[dict[str, dict[str, int] | list[str]]] = []
    try:
        asyncio.run(switch())
    finally:
        for client in clients:
            client.kill()
            client.wait()
    assert [result["failures"] for result in results] == [[], [], []]
    for result in results:
        done = result["done"]
        assert isinstance(done, dict)
        assert len(done) > 40  # of 51 generations, on a machine that may be busy
        assert sum(done.values()) > 500
