"""A host of one's own for a test: places to open sockets in, and the networks between them.

Sockets opened inside a namespace stay in it, so clients and servers are plain Python objects
of the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge import namespaces
from bridge.config import Endpoint, EndpointConfig, Network, NetworkConfig
from bridge.networks import Networks

LAN_HOST, LAN_NEIGHBOUR = "198.51.100.1", "198.51.100.2"
DROPPED = 0.25  # seconds after which a packet that should come has not come


class Place:
    """A network namespace to open sockets in: a container, the host, or a neighbour."""

    def __init__(self, lab: Lab, path: Path | None, address: str = "") -> None:
        self._lab = lab
        self.path = path
        self.address = address

    def run(self, *command: str, check: bool = True) -> str:
        """The output of a command inside."""
        prefix = [] if self.path is None else ["nsenter", f"--net={self.path}"]
        done = subprocess.run([*prefix, *command], capture_output=True, text=True, timeout=20)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, kind)
            made.settimeout(3)
            return self._lab.own(made)

        if self.path is None:
            return make()
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return namespaces.run_inside(fd, make)
        finally:
            os.close(fd)

    def serve(self, port: int, name: str, address: str = "0.0.0.0") -> None:
        """Answer TCP connections and UDP datagrams on `port` with `name` and who asked."""
        tcp = self.socket(socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((address, port))
        tcp.listen()
        udp = self.socket(socket.SOCK_DGRAM)
        udp.bind((address, port))
        for server in (tcp, udp):
            server.settimeout(0.2)

        def accept() -> None:
            with contextlib.suppress(TimeoutError):
                connection, peer = tcp.accept()
                connection.sendall(f"{name} {peer[0]}".encode())
                connection.close()

        def receive() -> None:
            with contextlib.suppress(TimeoutError):
                _data, peer = udp.recvfrom(100)
                udp.sendto(f"{name} {peer[0]}".encode(), peer)

        self._lab.repeat(accept)
        self._lab.repeat(receive)

    def ask(
        self, address: str, port: int, *, protocol: str = "tcp", timeout: float = 3
    ) -> tuple[str, str] | None:
        """(server's name, address that it saw), or None when nothing or a refusal came."""
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with self.socket(kind) as client:
            client.settimeout(timeout)
            try:
                client.connect((address, port))
                if protocol == "udp":
                    client.send(b"?")
                answer = client.recv(100)
            except OSError:
                return None
        name, _, seen = answer.decode().partition(" ")
        return name, seen

    def reaches(self, address: str, port: int, *, protocol: str = "tcp") -> bool:
        return self.ask(address, port, protocol=protocol) is not None

    def cannot_reach(self, address: str, port: int, *, protocol: str = "tcp") -> bool:
        return self.ask(address, port, protocol=protocol, timeout=DROPPED) is None


class Lab:
    """A host of one's own with a neighbour on its LAN, and its networks."""

    def __init__(self, tmp_path: Path) -> None:
        self.root, self.run_dir = tmp_path / "root", tmp_path / "run"
        self._tmp_path = tmp_path
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._opened: list[Networks] = []
        self.host = Place(self, None, "127.0.0.1")
        self.host.run("ip", "link", "set", "lo", "up")
        self.networks = self.open()

    def open(self, name: str = "") -> Networks:
        """The instance of that name, as a process that has just started sees it."""
        networks = Networks(self.root / name, self.run_dir / name)
        self._opened.append(networks)
        return networks

    def own(self, made: socket.socket) -> socket.socket:
        self._sockets.append(made)
        return made

    def repeat(self, job: Callable[[], None]) -> None:
        def run() -> None:
            while not self._stop.is_set():
                try:
                    job()
                except OSError:
                    return  # the socket was closed at the end of the test

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)

    def namespace(self, name: str) -> Place:
        path = self._tmp_path / name
        path.touch()
        namespaces.create(path, lambda: None)
        place = Place(self, path)
        place.run("ip", "link", "set", "lo", "up")
        return place

    def neighbour(self, *subnets: str) -> Place:
        """A machine on the host's LAN that routes the `subnets` by the host."""
        place = self.namespace("neighbour")
        place.address = LAN_NEIGHBOUR
        ip = ("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns")
        self.host.run(*ip, str(place.path))
        for machine, address in ((self.host, LAN_HOST), (place, LAN_NEIGHBOUR)):
            machine.run("ip", "address", "add", f"{address}/24", "dev", "lan0")
            machine.run("ip", "link", "set", "lan0", "up")
        for subnet in subnets:
            place.run("ip", "route", "add", subnet, "via", LAN_HOST)
        return place

    def network(self, name: str, **settings: Any) -> Network:
        return self.networks.create(NetworkConfig(id=f"id-{name}", name=name, **settings))

    def container(self, name: str, *on: Network, **settings: Any) -> Place:
        path = self.networks.open_sandbox(name)
        endpoints = [
            self.networks.connect(name, EndpointConfig(network_id=network.id, **settings))
            for network in on
        ]
        return Place(self, path, endpoints[0].address if endpoints else "")

    def endpoint(self, sandbox_id: str, network: Network) -> Endpoint:
        (endpoint,) = self.networks.endpoints(sandbox_id=sandbox_id, network_id=network.id)
        return endpoint

    def bridge_netfilter(self, value: str) -> None:
        """Whether bridged frames pass the address rules: a host may be either way."""
        setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
        if setting.exists():
            setting.write_text(value)

    def links(self) -> set[str]:
        return {link["ifname"] for link in json.loads(self.host.run("ip", "-j", "link"))}

    def tables(self) -> set[str]:
        ruleset = json.loads(self.host.run("nft", "-j", "list", "ruleset"))["nftables"]
        return {entry["table"]["name"] for entry in ruleset if "table" in entry}

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for made in self._sockets:
            made.close()
        for networks in self._opened:
            with contextlib.suppress(Exception):  # a test may have closed or broken it
                for sandbox_id in networks.sandboxes():
                    networks.close_sandbox(sandbox_id, release=True)
                networks.close()


def eventually(predicate: Callable[[], bool], what: str, *, seconds: float = 10) -> None:
    """Wait until `predicate` holds; fail with `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.01)
