"""Tells when something about the networks changed that this instance may not have done.

The kernel multicasts changes of links, addresses and forwarding (rtnetlink(7)) and of packet
filter rules (nfnetlink, NFNLGRP_NFTABLES). An event is only a reason to look: what is wrong,
if anything, is found by `Networks.ensure`, which does nothing where nothing is. So it does no
harm that a change of our own is sometimes taken for another's, and an event that is lost
(ENOBUFS) makes every network be looked at.

Our own changes are told apart: of links and addresses nothing is said while they are as the
database has them, and of rules while their generation is the one that we made.

Not heard of is what happens inside a sandbox, but for the loss of its link, and kernel
parameters other than forwarding.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from dataclasses import dataclass, field
from typing import Self

from bridge.netlink import attributes, split_messages
from bridge.networks import Networks

# include/uapi/linux/netlink.h, rtnetlink.h, netconf.h, netfilter/nfnetlink.h, nf_tables.h
_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELADDR, _RTM_NEWNETCONF = 16, 17, 20, 21, 80
_LINKS, _ADDRESSES, _NETCONF = 1 << (1 - 1), 1 << (5 - 1), 1 << (24 - 1)  # RTNLGRP_…
_RULES = 1 << (7 - 1)  # NFNLGRP_NFTABLES
_IFLA_IFNAME = 3
_NETCONFA_IFINDEX, _NETCONFA_FORWARDING = 1, 2
_ALL_LINKS, _OFF = struct.pack("=i", -1), struct.pack("=i", 0)
_NFNL_SUBSYS_NFTABLES = 10
_NFTA_TABLE_NAME = 1  # and of a chain, rule, set or element the name of its table
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h

_BUFFER = 4 << 20  # bytes; thirty containers that start make about a tenth of it
_MOST_AT_ONCE = 64  # datagrams, before others have their turn in the loop
_GATHER = 0.05  # seconds; what belongs together comes together
_REST = 0.5  # seconds between two alarms, so that a quarrel with another program stays slow


@dataclass(slots=True)
class _Seen:
    """What was heard of since the last alarm."""

    links: set[str] = field(default_factory=set)
    rules: bool = False
    everything: bool = False

    def __bool__(self) -> bool:
        return bool(self.links) or self.rules or self.everything


class NetworkWatch:
    """Listens in the network namespace of the thread that makes it; belongs to one event loop.

    async with NetworkWatch(networks) as watch:
        async for network_ids in watch:
            for network_id in network_ids:
                networks.ensure(network_id)

    What happened before it was entered is not told: call `Networks.sweep` after that.
    """

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._table = networks.table.encode()
        self._seen = _Seen()
        self._woken = asyncio.Event()
        self._names: dict[int, str] = {}  # of links, so that a new name does not hide the old
        self._sockets: list[socket.socket] = []
        self._last = float("-inf")

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            route = self._open(_NETLINK_ROUTE, _LINKS | _ADDRESSES | _NETCONF)
            rules = self._open(_NETLINK_NETFILTER, _RULES)
            self._names = await asyncio.to_thread(self._networks.link_names)
        except BaseException:
            self.close()
            raise
        for source in (route, rules):
            loop.add_reader(source, self._receive, source)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for made in self._sockets:
            with contextlib.suppress(RuntimeError):  # no loop runs any more
                asyncio.get_running_loop().remove_reader(made)
            made.close()
        self._sockets = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> frozenset[str]:
        """The ids of the networks that want to be looked at. Raises NetworkError."""
        loop = asyncio.get_running_loop()
        while True:
            await self._woken.wait()
            await asyncio.sleep(max(_GATHER, self._last + _REST - loop.time()))
            self._woken.clear()
            seen, self._seen = self._seen, _Seen()
            found = await asyncio.to_thread(self._look, seen)
            if found:
                self._last = loop.time()
                return found

    def _look(self, seen: _Seen) -> frozenset[str]:
        """The networks that want looking at, by what is so now. Blocking."""
        if seen.everything or (seen.rules and self._networks.rules_touched()):
            return frozenset(network.id for network in self._networks.list())
        return self._networks.drifted(seen.links)

    # what the kernel says

    def _open(self, family: int, groups: int) -> socket.socket:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._sockets.append(made)
        with contextlib.suppress(PermissionError):  # then it is as large as net.core.rmem_max
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        made.bind((0, groups))
        made.setblocking(False)
        return made

    def _receive(self, source: socket.socket) -> None:
        for _turn in range(_MOST_AT_ONCE):
            try:
                data = source.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                self._seen.everything = True  # something was lost: anything may have happened
                continue
            for kind, _flags, _sequence, payload in split_messages(data):
                if kind >> 8 == _NFNL_SUBSYS_NFTABLES:
                    self._on_rules(payload)
                elif kind in (_RTM_NEWLINK, _RTM_DELLINK):
                    self._on_link(kind, payload)
                elif kind in (_RTM_NEWADDR, _RTM_DELADDR):
                    self._on_address(payload)
                elif kind == _RTM_NEWNETCONF:
                    self._on_parameters(payload)
        if self._seen:
            self._woken.set()

    def _on_link(self, kind: int, payload: bytes) -> None:
        (index,) = struct.unpack_from("=i", payload, 4)
        name = dict(attributes(payload, 16)).get(_IFLA_IFNAME, b"").rstrip(b"\0").decode()
        self._seen.links |= {name, self._names.get(index, name)}
        if kind == _RTM_NEWLINK:
            self._names[index] = name
        elif payload[0] != socket.AF_BRIDGE:  # that one has only left its bridge
            self._names.pop(index, None)

    def _on_address(self, payload: bytes) -> None:
        (index,) = struct.unpack_from("=I", payload, 4)
        if index in self._names:  # else the link has gone too, which was told before
            self._seen.links.add(self._names[index])

    def _on_parameters(self, payload: bytes) -> None:
        found = dict(attributes(payload, 4))
        if found.get(_NETCONFA_IFINDEX) == _ALL_LINKS and found.get(_NETCONFA_FORWARDING) == _OFF:
            self._seen.everything = True

    def _on_rules(self, payload: bytes) -> None:
        table = dict(attributes(payload, 4)).get(_NFTA_TABLE_NAME, b"")
        if payload[0] == socket.AF_INET and table.rstrip(b"\0") == self._table:
            self._seen.rules = True
