"""Is a host port free, which one is, and who has it: asked of the host itself."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from bridge.config import ANY_ADDRESS
from bridge.errors import NetworkError, PortInUse

_TCP_LISTEN = "0A"  # include/net/tcp_states.h, as /proc/net/tcp prints it
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def probe(host_ip: str, host_port: int, protocol: str) -> int:
    """Bind a socket to the address ("" for all) and port for a moment; the port that it had.

    0 lets the kernel choose from net.ipv4.ip_local_port_range. A port that the host's own
    connections go out by, or did until lately, is free: what comes in is translated before it
    could meet them. Raises PortInUse with the holder where it can be found, NetworkError when
    the host has no such address.
    """
    address = host_ip or ANY_ADDRESS
    with socket.socket(socket.AF_INET, _KINDS[protocol]) as probing:
        if protocol == "tcp" and host_port:
            # Connections that linger do not count, a listener does (socket(7), SO_REUSEADDR).
            probing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probing.bind((address, host_port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                if protocol == "tcp" and only_connections(host_port):
                    return host_port
                holder = find_holder(host_port, protocol)
                raise PortInUse(address, host_port, protocol, holder) from None
            if exc.errno == errno.EADDRNOTAVAIL:
                raise NetworkError(
                    f"cannot publish on {address}:{host_port}/{protocol}:"
                    f" this host has no address {address}"
                ) from exc
            raise NetworkError(
                f"cannot publish on {address}:{host_port}/{protocol}: {exc.strerror}"
            ) from exc
        return int(probing.getsockname()[1])


def only_connections(port: int, *, proc: Path = Path("/proc")) -> bool:
    """Whether a TCP port that cannot be bound has connections, but nobody who listens."""
    states: set[str] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            text = (proc / "thread-self" / "net" / table).read_text()
            states |= {fields[3] for fields in _sockets(text, port)}
    return bool(states) and _TCP_LISTEN not in states


def find_holder(port: int, protocol: str, *, proc: Path = Path("/proc")) -> str | None:
    """The program that has a socket on `port`, as "nginx (pid 12)"; None when it cannot be told.

    By the socket's inode in /proc/net (proc(5)) and the descriptors of all processes.
    """
    inodes: set[str] = set()
    for table in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            inodes |= _inodes(
                (proc / "thread-self" / "net" / table).read_text(), port, tcp=protocol == "tcp"
            )
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        # A process that ends, or that may not be looked at, is not the one.
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(process / "fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(process / "fd" / descriptor) in wanted:
                        name = (process / "comm").read_text().strip()
                        return f"{name} (pid {process.name})"
    return None


def _inodes(table: str, port: int, *, tcp: bool) -> set[str]:
    """Inodes of the sockets in a /proc/net table that are bound to `port` (for TCP: listen)."""
    return {
        fields[9]
        for fields in _sockets(table, port)
        if fields[9] != "0" and not (tcp and fields[3] != _TCP_LISTEN)
    }


def _sockets(table: str, port: int) -> Iterator[list[str]]:
    """The lines of a /proc/net table whose local port is this one, in fields."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 10 and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields
