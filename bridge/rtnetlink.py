"""Links, addresses and routes: rtnetlink(7) messages over one plain socket.

pyroute2 knows the messages; the socket is ours, because it has to be opened inside a network
namespace by a thread that has entered it, and because the library's own socket costs a fork
for that, keeps something of every call and looks up every link. Requests go out in one
datagram and their answers are collected.

A socket belongs to the network namespace of the thread that opened it, for good.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address
from ipaddress import IPv4Network as Subnet
from typing import Any

from bridge.errors import LinkError
from bridge.messages import ifaddrmsg, ifinfmsg, rtmsg
from bridge.netlink import (
    HEADER_SIZE,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    NetlinkSocket,
    attributes,
)

# include/uapi/linux/rtnetlink.h, if_link.h
_NETLINK_ROUTE = 0
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 3, 4, 10, 18
_IFLA_IFALIAS, _IFLA_EXT_MASK, _IFLA_ADDRESS = 20, 29, 1
_IFLA_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_METRICS, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 8, 9, 15
_RTAX_MTU = 2
_RT_TABLE_LOCAL = 255
_RTEXT_FILTER_SKIP_STATS = 8
_IFF_UP = 1
_RTPROT_BOOT, _RTN_UNICAST, _RT_SCOPE_UNIVERSE, _RT_TABLE_MAIN = 3, 1, 0, 254


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface as the kernel tells of it; `kind` "" for a physical one."""

    index: int
    name: str
    up: bool
    kind: str
    master: int
    mtu: int
    mac: str
    alias: str


class RouteSocket(NetlinkSocket):
    """Talks to one network namespace's links, addresses and routes."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_ROUTE)

    # links

    def link(self, name: str) -> Link | None:
        """The link called `name`, None where there is none."""
        message = _link_message()
        message["attrs"] = [
            ("IFLA_IFNAME", name),
            ("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS),
        ]
        try:
            (reply,) = self._change([(message, _RTM_GETLINK, 0)], f"look up link {name}")
        except LinkError as exc:
            if exc.errno == errno.ENODEV:
                return None
            raise
        return _decode_link(reply)

    def links(self, *, master: int | None = None) -> tuple[Link, ...]:
        """All links, or those on the bridge `master`."""
        message = _link_message()
        message["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
        if master is not None:
            message["attrs"].append(("IFLA_MASTER", master))
        return tuple(_decode_link(m) for m in self._list(message, _RTM_GETLINK, "list links"))

    def add_bridge(self, name: str, *, mac: str, mtu: int | None) -> None:
        """A bridge, still down. It forwards at once: no spanning tree, no listening delay."""
        message = _link_message()
        message["attrs"] = [
            ("IFLA_IFNAME", name),
            ("IFLA_ADDRESS", mac),
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_KIND", "bridge"),
                        ("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_FORWARD_DELAY", 0)]}),
                    ]
                },
            ),
        ]
        if mtu is not None:
            message["attrs"].append(("IFLA_MTU", mtu))
        self._create(message, f"create bridge {name}")

    def add_veth(
        self,
        name: str,
        *,
        master: int,
        peer: str,
        peer_namespace: int,
        peer_mac: str,
        mtu: int | None,
    ) -> None:
        """A pair: `name` here, up and on bridge `master`; `peer` born in the other namespace.

        `peer_namespace` is an open descriptor of that namespace. The peer is still down:
        veth_open() in drivers/net/veth.c wants both to be there.
        """
        other: list[tuple[str, Any]] = [
            ("IFLA_IFNAME", peer),
            ("IFLA_ADDRESS", peer_mac),
            ("IFLA_NET_NS_FD", peer_namespace),
        ]
        message = _link_message(up=True)
        message["attrs"] = [("IFLA_IFNAME", name), ("IFLA_MASTER", master)]
        if mtu is not None:
            message["attrs"].append(("IFLA_MTU", mtu))
            other.append(("IFLA_MTU", mtu))
        message["attrs"].append(
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_KIND", "veth"),
                        ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": other})]}),
                    ]
                },
            )
        )
        self._create(message, f"create veth {name}")

    def set_link(
        self,
        index: int,
        *,
        up: bool = False,
        master: int | None = None,
        alias: str | None = None,
        mtu: int | None = None,
    ) -> None:
        """Change what is given of the link `index`."""
        message = _link_message(up=up, index=index)
        wanted: list[tuple[str, Any]] = []
        if master is not None:
            wanted.append(("IFLA_MASTER", master))
        if alias is not None:
            wanted.append(("IFLA_IFALIAS", alias))
        if mtu is not None:
            wanted.append(("IFLA_MTU", mtu))
        message["attrs"] = wanted
        self._change([(message, _RTM_NEWLINK, NLM_F_ACK)], f"change link {index}")

    def set_bridge_port(
        self, index: int, *, hairpin: bool | None = None, isolated: bool | None = None
    ) -> None:
        """Change the bridge port `index`: may a frame go back where it came from, or to others."""
        wanted: list[tuple[str, int | None]] = []
        if hairpin is not None:
            wanted.append(("IFLA_BRPORT_MODE", int(hairpin)))
        if isolated is not None:
            wanted.append(("IFLA_BRPORT_ISOLATED", int(isolated)))
        self._set_port(index, tuple(wanted))

    def silence_bridge_port(self, index: int) -> None:
        """Send no frame to the bridge port `index` any more, and learn nothing from it.

        Setting the link down would do, but waits for the kernel; the port's state is put
        back to forwarding by the bridge at once.
        """
        flags = ("LEARNING", "UNICAST_FLOOD", "MCAST_FLOOD", "BCAST_FLOOD")
        wanted = [(f"IFLA_BRPORT_{flag}", 0) for flag in flags]
        self._set_port(index, (*wanted, ("IFLA_BRPORT_FLUSH", None)))

    def _set_port(self, index: int, wanted: tuple[tuple[str, int | None], ...]) -> None:
        payload = _for_link(index, _port_payload(wanted))
        message = Message(kind=_RTM_NEWLINK, flags=NLM_F_ACK, payload=payload)
        self.request([message], f"change bridge port {index}")

    def set_up(self, index: int) -> None:
        payload = _for_link(index, _up_payload())
        message = Message(kind=_RTM_NEWLINK, flags=NLM_F_ACK, payload=payload)
        self.request([message], f"set link {index} up")

    def delete_link(self, index: int) -> None:
        """Remove the link `index`; one that is not there is as good."""
        message = _link_message(index=index)
        try:
            self._change([(message, _RTM_DELLINK, NLM_F_ACK)], f"delete link {index}")
        except LinkError as exc:
            if exc.errno != errno.ENODEV:
                raise

    # addresses and routes

    def addresses(self) -> tuple[tuple[int, IPv4Address, int], ...]:
        """Every IPv4 address as (link index, address, prefix length)."""
        message = ifaddrmsg()
        message["family"] = socket.AF_INET
        found = []
        for payload in self._list(message, _RTM_GETADDR, "list addresses"):
            prefix = payload[1]
            (index,) = struct.unpack_from("=I", payload, 4)
            parts = dict(attributes(payload, 8))
            raw = parts.get(_IFA_LOCAL) or parts.get(_IFA_ADDRESS)
            if raw is not None:
                found.append((index, IPv4Address(raw), prefix))
        return tuple(found)

    def add_address(self, index: int, address: IPv4Address, prefix: int) -> None:
        """Give the link an address; one that it has is as good."""
        message = _address_message(index, address, prefix)
        try:
            self._change(
                [(message, _RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)],
                f"add address {address}/{prefix}",
            )
        except LinkError as exc:
            if exc.errno != errno.EEXIST:
                raise

    def delete_address(self, index: int, address: IPv4Address, prefix: int) -> None:
        message = _address_message(index, address, prefix)
        self._change([(message, _RTM_DELADDR, NLM_F_ACK)], f"delete address {address}/{prefix}")

    def routes(self) -> tuple[tuple[Subnet, int], ...]:
        """The destinations of all IPv4 routes but the default ones, with their link's index."""
        message = rtmsg()
        message["family"] = socket.AF_INET
        found = []
        for payload in self._list(message, _RTM_GETROUTE, "list routes"):
            prefix, table = payload[1], payload[4]
            parts = dict(attributes(payload, 12))
            if _RTA_TABLE in parts:
                (table,) = struct.unpack("=I", parts[_RTA_TABLE])
            destination = parts.get(_RTA_DST)
            if destination is None or prefix == 0 or table == _RT_TABLE_LOCAL:
                continue
            oif = parts.get(_RTA_OIF)
            index = struct.unpack("=I", oif)[0] if oif else 0
            found.append((Subnet((int.from_bytes(destination, "big"), prefix)), index))
        return tuple(found)

    def uplinks(self) -> tuple[tuple[int, int | None], ...]:
        """(link index, MTU of the route or None) of each default route of the main table."""
        message = rtmsg()
        message["family"] = socket.AF_INET
        found = []
        for payload in self._list(message, _RTM_GETROUTE, "list routes"):
            prefix, table, kind = payload[1], payload[4], payload[7]
            if prefix or table != _RT_TABLE_MAIN or kind != _RTN_UNICAST:
                continue
            parts = dict(attributes(payload, 12))
            mtu = dict(attributes(parts.get(_RTA_METRICS, b""))).get(_RTAX_MTU)
            hops = list(_next_hops(parts.get(_RTA_MULTIPATH, b"")))
            if _RTA_OIF in parts:
                hops.append(struct.unpack("=I", parts[_RTA_OIF])[0])
            for index in hops:
                found.append((index, None if mtu is None else struct.unpack("=I", mtu)[0]))
        return tuple(found)

    def configure(
        self, index: int, address: IPv4Address, prefix: int, gateway: IPv4Address | None
    ) -> None:
        """Set a new link up with its address and, by `gateway`, the default route; one message."""
        up = _for_link(index, _up_payload())
        requested = _address_message(index, address, prefix)
        messages = [
            Message(kind=_RTM_NEWLINK, flags=NLM_F_ACK, payload=up),
            _encoded(requested, _RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE),
        ]
        if gateway is not None:
            route = _default_route(gateway)
            route["attrs"].append(("RTA_OIF", index))
            messages.append(
                _encoded(route, _RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
            )
        self.request(messages, f"set up link {index} with address {address}/{prefix}")

    def replace_default_route(self, index: int, gateway: IPv4Address) -> None:
        """Send everything that no other route takes to `gateway` by the link `index`."""
        message = _default_route(gateway)
        message["attrs"].append(("RTA_OIF", index))
        self._change(
            [(message, _RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)],
            f"set default route by {gateway}",
        )

    def delete_default_route(self, gateway: IPv4Address) -> None:
        """Remove the default route by `gateway`; none is as good."""
        try:
            self._change(
                [(_default_route(gateway), _RTM_DELROUTE, NLM_F_ACK)],
                f"delete default route by {gateway}",
            )
        except LinkError as exc:
            if exc.errno != errno.ESRCH:
                raise

    def _create(self, message: Any, attempted: str) -> None:
        flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
        self._change([(message, _RTM_NEWLINK, flags)], attempted)

    def _change(self, messages: Sequence[tuple[Any, int, int]], attempted: str) -> list[bytes]:
        """Send (message, type, flags) in one datagram and give what comes back."""
        return self.request([_encoded(*message) for message in messages], attempted)

    def _list(self, message: Any, kind: int, attempted: str) -> list[bytes]:
        return self.dump(_encoded(message, kind, 0), attempted)


def _encoded(message: Any, kind: int, flags: int) -> Message:
    message.encode()
    return Message(kind=kind, flags=flags, payload=bytes(message.data)[HEADER_SIZE:])


@cache
def _up_payload() -> bytes:
    """What sets a link up; for which one, `_for_link` fills in."""
    return _encoded(_link_message(up=True), 0, 0).payload


@cache
def _port_payload(wanted: tuple[tuple[str, int | None], ...]) -> bytes:
    message = _link_message()
    message["attrs"] = [
        (
            "IFLA_LINKINFO",
            {
                "attrs": [
                    ("IFLA_INFO_SLAVE_KIND", "bridge"),
                    ("IFLA_INFO_SLAVE_DATA", {"attrs": list(wanted)}),
                ]
            },
        )
    ]
    return _encoded(message, 0, 0).payload


def _for_link(index: int, payload: bytes) -> bytes:
    """A link message with ifi_index filled in: encoding one anew takes 60 µs and more."""
    return payload[:4] + struct.pack("=i", index) + payload[8:]


def _link_message(*, up: bool = False, index: int = 0) -> Any:
    message = ifinfmsg()
    message["index"] = index
    if up:
        message["flags"] = message["change"] = _IFF_UP
    message["attrs"] = []
    return message


def _address_message(index: int, address: IPv4Address, prefix: int) -> Any:
    message = ifaddrmsg()
    message["family"] = socket.AF_INET
    message["index"] = index
    message["prefixlen"] = prefix
    broadcast = Subnet((int(address), prefix), strict=False).broadcast_address
    message["attrs"] = [
        ("IFA_LOCAL", str(address)),
        ("IFA_ADDRESS", str(address)),
        ("IFA_BROADCAST", str(broadcast)),
    ]
    return message


def _default_route(gateway: IPv4Address) -> Any:
    message = rtmsg()
    message["family"] = socket.AF_INET
    message["dst_len"] = 0
    message["table"] = _RT_TABLE_MAIN
    message["proto"] = _RTPROT_BOOT
    message["scope"] = _RT_SCOPE_UNIVERSE
    message["type"] = _RTN_UNICAST
    message["attrs"] = [("RTA_GATEWAY", str(gateway))]
    return message


def _next_hops(multipath: bytes) -> Iterator[int]:
    """The link index of each struct rtnexthop."""
    offset = 0
    while offset + 8 <= len(multipath):
        length, index = struct.unpack_from("=HxxI", multipath, offset)
        if length < 8:
            return
        yield index
        offset += (length + 3) & ~3


def _decode_link(payload: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", payload, 4)
    found = dict(attributes(payload, 16))
    info = dict(attributes(found.get(_IFLA_LINKINFO, b""), 0))
    return Link(
        index=index,
        name=_text(found, _IFLA_IFNAME),
        up=bool(flags & _IFF_UP),
        kind=_text(info, _IFLA_INFO_KIND),
        master=_number(found, _IFLA_MASTER),
        mtu=_number(found, _IFLA_MTU),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        alias=_text(found, _IFLA_IFALIAS),
    )


def _text(found: Mapping[int, bytes], kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode(errors="replace")


def _number(found: Mapping[int, bytes], kind: int) -> int:
    raw = found.get(kind)
    return int(struct.unpack("=I", raw)[0]) if raw else 0
