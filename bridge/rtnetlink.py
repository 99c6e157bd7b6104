"""Links, addresses and routes: rtnetlink(7) messages over one plain socket.

pyroute2 knows the messages; the socket is ours, because it has to be opened inside a network
namespace by a thread that has entered it, and because the library's own socket costs a fork
for that, keeps something of every call and looks up every link. Requests go out in one
datagram and their answers are collected.

A socket belongs to the network namespace of the thread that opened it, for good.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from ipaddress import IPv4Network as Subnet
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bridge.errors import LinkError

# include/uapi/linux/netlink.h, rtnetlink.h, if_link.h
_NETLINK_ROUTE = 0
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLM_F_REPLACE, _NLM_F_EXCL, _NLM_F_CREATE = 0x100, 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSG_HEADER = 16
_NLMSGERR_ATTR_MSG = 1
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 3, 4, 10, 18
_IFLA_IFALIAS, _IFLA_EXT_MASK, _IFLA_ADDRESS = 20, 29, 1
_IFLA_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15
_RT_TABLE_LOCAL = 255
_RTEXT_FILTER_SKIP_STATS = 8
_IFF_UP = 1
_RTPROT_BOOT, _RTN_UNICAST, _RT_SCOPE_UNIVERSE, _RT_TABLE_MAIN = 3, 1, 0, 254
_RECEIVE_SIZE = 1 << 16


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


class RouteSocket:
    """Talks to one network namespace's links, addresses and routes."""

    def __init__(self) -> None:
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE
        )
        try:
            self._socket.bind((0, 0))
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.settimeout(10)  # the kernel always answers; never hang on a bug
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> RouteSocket:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    # links

    def link(self, name: str) -> Link | None:
        """The link called `name`, None where there is none."""
        message = _link_message()
        message["attrs"] = [
            ("IFLA_IFNAME", name),
            ("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS),
        ]
        try:
            (reply,) = self._request([(message, _RTM_GETLINK, 0)], f"look up link {name}")
        except LinkError as exc:
            if exc.errno == errno.ENODEV:
                return None
            raise
        return _decode_link(reply)

    def links(self) -> tuple[Link, ...]:
        message = _link_message()
        message["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
        return tuple(_decode_link(m) for m in self._dump(message, _RTM_GETLINK, "list links"))

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
        attributes: list[tuple[str, Any]] = []
        if master is not None:
            attributes.append(("IFLA_MASTER", master))
        if alias is not None:
            attributes.append(("IFLA_IFALIAS", alias))
        if mtu is not None:
            attributes.append(("IFLA_MTU", mtu))
        message["attrs"] = attributes
        self._request([(message, _RTM_NEWLINK, _NLM_F_ACK)], f"change link {index}")

    def set_bridge_port(
        self, index: int, *, hairpin: bool | None = None, isolated: bool | None = None
    ) -> None:
        """Change the bridge port `index`: may a frame go back where it came from, or to others."""
        attributes: list[tuple[str, Any]] = []
        if hairpin is not None:
            attributes.append(("IFLA_BRPORT_MODE", int(hairpin)))
        if isolated is not None:
            attributes.append(("IFLA_BRPORT_ISOLATED", int(isolated)))
        self._set_port(index, attributes)

    def silence_bridge_port(self, index: int) -> None:
        """Send no frame to the bridge port `index` any more, and learn nothing from it.

        Setting the link down would do, but waits for the kernel; the port's state is put
        back to forwarding by the bridge at once.
        """
        flags = ("LEARNING", "UNICAST_FLOOD", "MCAST_FLOOD", "BCAST_FLOOD")
        attributes: list[tuple[str, Any]] = [(f"IFLA_BRPORT_{flag}", 0) for flag in flags]
        self._set_port(index, [*attributes, ("IFLA_BRPORT_FLUSH", None)])

    def _set_port(self, index: int, attributes: list[tuple[str, Any]]) -> None:
        message = _link_message(index=index)
        message["attrs"] = [
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_SLAVE_KIND", "bridge"),
                        ("IFLA_INFO_SLAVE_DATA", {"attrs": attributes}),
                    ]
                },
            )
        ]
        self._request([(message, _RTM_NEWLINK, _NLM_F_ACK)], f"change bridge port {index}")

    def delete_link(self, index: int) -> None:
        """Remove the link `index`; one that is not there is as good."""
        message = _link_message(index=index)
        try:
            self._request([(message, _RTM_DELLINK, _NLM_F_ACK)], f"delete link {index}")
        except LinkError as exc:
            if exc.errno != errno.ENODEV:
                raise

    # addresses and routes

    def addresses(self) -> tuple[tuple[int, IPv4Address, int], ...]:
        """Every IPv4 address as (link index, address, prefix length)."""
        message = ifaddrmsg()
        message["family"] = socket.AF_INET
        found = []
        for payload in self._dump(message, _RTM_GETADDR, "list addresses"):
            prefix = payload[1]
            (index,) = struct.unpack_from("=I", payload, 4)
            attributes = dict(_attributes(payload, 8))
            raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if raw is not None:
                found.append((index, IPv4Address(raw), prefix))
        return tuple(found)

    def add_address(self, index: int, address: IPv4Address, prefix: int) -> None:
        """Give the link an address; one that it has is as good."""
        message = _address_message(index, address, prefix)
        try:
            self._request(
                [(message, _RTM_NEWADDR, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL)],
                f"add address {address}/{prefix}",
            )
        except LinkError as exc:
            if exc.errno != errno.EEXIST:
                raise

    def delete_address(self, index: int, address: IPv4Address, prefix: int) -> None:
        message = _address_message(index, address, prefix)
        self._request([(message, _RTM_DELADDR, _NLM_F_ACK)], f"delete address {address}/{prefix}")

    def routes(self) -> tuple[tuple[Subnet, int], ...]:
        """The destinations of all IPv4 routes but the default ones, with their link's index."""
        message = rtmsg()
        message["family"] = socket.AF_INET
        found = []
        for payload in self._dump(message, _RTM_GETROUTE, "list routes"):
            prefix, table = payload[1], payload[4]
            attributes = dict(_attributes(payload, 12))
            if _RTA_TABLE in attributes:
                (table,) = struct.unpack("=I", attributes[_RTA_TABLE])
            destination = attributes.get(_RTA_DST)
            if destination is None or prefix == 0 or table == _RT_TABLE_LOCAL:
                continue
            oif = attributes.get(_RTA_OIF)
            index = struct.unpack("=I", oif)[0] if oif else 0
            found.append((Subnet((int.from_bytes(destination, "big"), prefix)), index))
        return tuple(found)

    def configure(
        self, index: int, address: IPv4Address, prefix: int, gateway: IPv4Address | None
    ) -> None:
        """Set a new link up with its address and, by `gateway`, the default route; one message."""
        up = _link_message(up=True, index=index)
        messages = [
            (up, _RTM_NEWLINK, _NLM_F_ACK),
            (_address_message(index, address, prefix), _RTM_NEWADDR, _NLM_F_ACK | _NLM_F_CREATE),
        ]
        if gateway is not None:
            route = _default_route(gateway)
            route["attrs"].append(("RTA_OIF", index))
            flags = _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_REPLACE
            messages.append((route, _RTM_NEWROUTE, flags))
        self._request(messages, f"set up link {index} with address {address}/{prefix}")

    def replace_default_route(self, index: int, gateway: IPv4Address) -> None:
        """Send everything that no other route takes to `gateway` by the link `index`."""
        message = _default_route(gateway)
        message["attrs"].append(("RTA_OIF", index))
        self._request(
            [(message, _RTM_NEWROUTE, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_REPLACE)],
            f"set default route by {gateway}",
        )

    def delete_default_route(self, gateway: IPv4Address) -> None:
        """Remove the default route by `gateway`; none is as good."""
        try:
            self._request(
                [(_default_route(gateway), _RTM_DELROUTE, _NLM_F_ACK)],
                f"delete default route by {gateway}",
            )
        except LinkError as exc:
            if exc.errno != errno.ESRCH:
                raise

    # the wire

    def _create(self, message: Any, attempted: str) -> None:
        flags = _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL
        self._request([(message, _RTM_NEWLINK, flags)], attempted)

    def _request(self, messages: Sequence[tuple[Any, int, int]], attempted: str) -> list[bytes]:
        """Send (message, type, flags) and give the payload of each answer; raises LinkError."""
        first = self._sequence + 1
        data = b"".join(self._encode(*message) for message in messages)
        self._socket.send(data)
        waiting = set(range(first, self._sequence + 1))
        answers: list[bytes] = []
        failure: LinkError | None = None
        while waiting:
            for kind, flags, sequence, payload in _messages(self._socket.recv(_RECEIVE_SIZE)):
                if sequence not in waiting:
                    continue
                waiting.discard(sequence)
                if kind != _NLMSG_ERROR:
                    answers.append(payload)
                elif failure is None:
                    failure = _failure(attempted, flags, payload)
        if failure is not None:
            raise failure
        return answers

    def _dump(self, message: Any, kind: int, attempted: str) -> Iterator[bytes]:
        self._socket.send(self._encode(message, kind, _NLM_F_DUMP))
        sequence = self._sequence
        while True:
            for kind_, flags, sequence_, payload in _messages(self._socket.recv(_RECEIVE_SIZE)):
                if sequence_ != sequence:
                    continue
                if kind_ == _NLMSG_DONE:
                    return
                if kind_ == _NLMSG_ERROR:
                    failure = _failure(attempted, flags, payload)
                    if failure is not None:
                        raise failure
                    return
                yield payload

    def _encode(self, message: Any, kind: int, flags: int) -> bytes:
        self._sequence += 1
        message["header"]["type"] = kind
        message["header"]["flags"] = flags | _NLM_F_REQUEST
        message["header"]["sequence_number"] = self._sequence
        message.encode()
        return bytes(message.data)


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


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, payload) of each message in a datagram."""
    offset = 0
    while offset + _NLMSG_HEADER <= len(data):
        length, kind, flags, sequence, _port = struct.unpack_from("=IHHII", data, offset)
        if length < _NLMSG_HEADER:
            return
        yield kind, flags, sequence, data[offset + _NLMSG_HEADER : offset + length]
        offset += (length + 3) & ~3


def _attributes(payload: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute from `offset` on."""
    while offset + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, payload[offset + 4 : offset + length]  # less NLA_F_NESTED
        offset += (length + 3) & ~3


def _failure(attempted: str, flags: int, payload: bytes) -> LinkError | None:
    """What an acknowledgement says went wrong; None when it says that all is well."""
    (number,) = struct.unpack_from("=i", payload, 0)
    if number == 0:
        return None
    message = os.strerror(-number)
    if flags & _NLM_F_ACK_TLVS:
        # Behind the errno stands the header of the request, with its payload unless capped.
        (length,) = struct.unpack_from("=I", payload, 4)
        offset = 4 + (_NLMSG_HEADER if flags & _NLM_F_CAPPED else (length + 3) & ~3)
        text = dict(_attributes(payload, offset)).get(_NLMSGERR_ATTR_MSG)
        if text:
            message = f"{message} ({text.rstrip(bytes(1)).decode(errors='replace')})"
    return LinkError(attempted, -number, message)


def _decode_link(payload: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", payload, 4)
    attributes = dict(_attributes(payload, 16))
    info = dict(_attributes(attributes.get(_IFLA_LINKINFO, b""), 0))
    return Link(
        index=index,
        name=_text(attributes, _IFLA_IFNAME),
        up=bool(flags & _IFF_UP),
        kind=_text(info, _IFLA_INFO_KIND),
        master=_number(attributes, _IFLA_MASTER),
        mtu=_number(attributes, _IFLA_MTU),
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        alias=_text(attributes, _IFLA_IFALIAS),
    )


def _text(attributes: Mapping[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").rstrip(b"\0").decode(errors="replace")


def _number(attributes: Mapping[int, bytes], kind: int) -> int:
    raw = attributes.get(kind)
    return int(struct.unpack("=I", raw)[0]) if raw else 0
