"""Waits until a backend that gets no new connections has none left.

`Networks.balance` says where new connections go; the kernel keeps the old ones where they
are. How many those are stands in its connection table (`Networks.connections`), which is
asked only when something has happened: the kernel tells of every TCP socket of the sandbox
that is destroyed (sock_diag(7), SKNLGRP_INET_TCP_DESTROY). The table's own events would not
do: by default (net.netfilter.nf_conntrack_events=2) it has none for connections that are older
than the listener, and a listener that is always there would be told of all that the host
connects. What ends without a socket in the sandbox (a client that vanished, a container that
passes connections on) is found by looking again every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from bridge import namespaces
from bridge.networks import Networks

# include/uapi/linux/netlink.h, sock_diag.h
_NETLINK_SOCK_DIAG = 4
_TCP_DESTROYED = 1 << (1 - 1) | 1 << (3 - 1)  # SKNLGRP_INET_TCP_DESTROY, _INET6_TCP_DESTROY

_SETTLE = 0.05  # seconds; thousands of sockets may end at once
_LOOK_AGAIN = 1.0
_SHARE = 10  # looking takes at most a tenth of the time: a large table takes 20 ms and more


async def drain(networks: Networks, sandbox_id: str, *, timeout: float) -> int:
    """Wait until no published port leads a TCP connection to the sandbox any more.

    The sandbox must have been taken out of its services' backends before. Gives up after
    `timeout` seconds; returns how many connections are open still: 0 when it is drained.
    A sandbox that is not there has none. Raises NetworkError.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    ended = asyncio.Event()
    events = _listen(networks, sandbox_id)
    if events is None:
        return 0

    def receive() -> None:
        ended.set()
        with contextlib.suppress(OSError):  # none left, or more than the socket could hold
            while events.recv(1 << 16):
                pass

    loop.add_reader(events, receive)
    try:
        clear = False
        while True:
            ended.clear()
            began = loop.time()
            left = await asyncio.to_thread(networks.connections, sandbox_id)
            settle = max(_SETTLE, _SHARE * (loop.time() - began))
            # None twice: a first packet that met the rules of before may not stand in the
            # table yet.
            if (not left and clear) or loop.time() >= deadline:
                return left
            clear = not left
            pause = _SETTLE if clear else _LOOK_AGAIN + settle
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(loop.time() + pause, deadline)):
                    await ended.wait()
                    await asyncio.sleep(settle)
    finally:
        loop.remove_reader(events)
        events.close()


def _listen(networks: Networks, sandbox_id: str) -> socket.socket | None:
    """A socket that hears of TCP sockets that end in the sandbox; None without a sandbox."""

    def listen() -> socket.socket:
        made = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
        )
        try:
            made.bind((0, _TCP_DESTROYED))
            made.setblocking(False)
        except BaseException:
            made.close()
            raise
        return made

    namespace = namespaces.open_bound(networks.namespace(sandbox_id))
    if namespace is None:
        return None
    try:
        return namespaces.run_inside(namespace, listen)
    finally:
        os.close(namespace)
