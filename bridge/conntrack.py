"""The kernel's table of connections: what is open, and what should be forgotten.

The nat rules see only the first packet of a connection. So a TCP connection stays with the
backend that it began with, whatever becomes of the rules, and is counted here until it ends.
Of UDP, a client that keeps sending from one port is one connection for as long as it does:
what it sent before the port was published, or to a container that is gone, would be
remembered for ever, and is made to be forgotten.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address

from bridge.errors import LinkError
from bridge.netlink import NLM_F_ACK, Message, NetlinkSocket, attribute, attributes, nested
from bridge.ruleset import Backend

# include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h; the filter's flags stand in
# net/netfilter/nf_internals.h
_NETLINK_NETFILTER = 12
_CT_GET, _CT_DELETE = 1 << 8 | 1, 1 << 8 | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_PROTOINFO, _CTA_FILTER = 1, 2, 3, 4, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V4_DST = 1, 2
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_CTA_PROTOINFO_TCP, _CTA_PROTOINFO_TCP_STATE = 1, 1
_CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_REPLY_FLAGS = 1, 2
_BY_SOURCE, _BY_PROTO_NUM, _BY_DST_PORT = 1 << 0, 1 << 3, 1 << 5
_IPS_DST_NAT = 1 << 5  # nf_conntrack_common.h
_TIME_WAIT, _CLOSE = 7, 8  # nf_conntrack_tcp.h: both sides have said good-bye, or one has reset
_GENERAL_HEADER = struct.pack("!BBH", socket.AF_INET, 0, 0)  # struct nfgenmsg


def open_socket() -> NetlinkSocket:
    """A socket to keep: closing one makes the kernel wait for rules that were deleted."""
    return NetlinkSocket(_NETLINK_NETFILTER)


def forget_udp(
    netlink: NetlinkSocket,
    ports: Mapping[int, Collection[Backend]],
    local: Collection[IPv4Address],
) -> int:
    """Forget what was sent by UDP to one of `ports` on this host and is led to none of its
    backends; how many connections.

    `local` are the host's own addresses; what passes by to others is not touched. A kernel
    that cannot filter by port (before 5.8) is left as it is. Raises LinkError.
    """
    forgotten = 0
    for port, backends in ports.items():
        right = {(IPv4Address(backend.address), backend.port) for backend in backends}
        try:
            found = _find(netlink, port)
        except LinkError as exc:
            if exc.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return forgotten
            raise
        for entry in found:
            destination = _end(entry.get(_CTA_TUPLE_ORIG, b""), _CTA_IP_V4_DST, _CTA_PROTO_DST_PORT)
            answered_by = _end(
                entry.get(_CTA_TUPLE_REPLY, b""), _CTA_IP_V4_SRC, _CTA_PROTO_SRC_PORT
            )
            if destination is None or answered_by in right:
                continue
            if destination[0] in local or destination[0].is_loopback:
                original = nested(_CTA_TUPLE_ORIG, entry[_CTA_TUPLE_ORIG])
                forgotten += _delete(netlink, _GENERAL_HEADER + original)
    return forgotten


def open_connections(netlink: NetlinkSocket, backend: IPv4Address) -> int:
    """How many TCP connections that were led to `backend` by a published port are open.

    From a client's first packet until both sides have closed, or one has reset. Raises
    LinkError.
    """
    reply = (
        nested(_CTA_TUPLE_IP, attribute(_CTA_IP_V4_SRC, backend.packed)),
        nested(_CTA_TUPLE_PROTO, attribute(_CTA_PROTO_NUM, bytes([socket.IPPROTO_TCP]))),
    )
    flags = attribute(_CTA_FILTER_REPLY_FLAGS, struct.pack("=I", _BY_SOURCE | _BY_PROTO_NUM))
    payload = _GENERAL_HEADER + nested(_CTA_TUPLE_REPLY, *reply) + nested(_CTA_FILTER, flags)
    message = Message(kind=_CT_GET, flags=0, payload=payload)
    entries = netlink.dump(message, f"list connections to {backend}")
    return sum(
        _is_open(dict(attributes(entry, len(_GENERAL_HEADER))), backend) for entry in entries
    )


def _is_open(entry: Mapping[int, bytes], backend: IPv4Address) -> bool:
    (status,) = struct.unpack("!I", entry.get(_CTA_STATUS, bytes(4)))
    tcp = dict(attributes(entry.get(_CTA_PROTOINFO, b""))).get(_CTA_PROTOINFO_TCP)
    if tcp is None or not status & _IPS_DST_NAT:
        return False
    # A kernel before 5.8 filters nothing.
    addresses = dict(attributes(entry.get(_CTA_TUPLE_REPLY, b""))).get(_CTA_TUPLE_IP, b"")
    if dict(attributes(addresses)).get(_CTA_IP_V4_SRC) != backend.packed:
        return False
    state = dict(attributes(tcp)).get(_CTA_PROTOINFO_TCP_STATE, b"\0")[0]
    return state not in (_TIME_WAIT, _CLOSE)


def _find(netlink: NetlinkSocket, port: int) -> list[dict[int, bytes]]:
    """The attributes of each connection to `port` by UDP."""
    protocol = nested(
        _CTA_TUPLE_PROTO,
        attribute(_CTA_PROTO_NUM, struct.pack("!B", socket.IPPROTO_UDP)),
        attribute(_CTA_PROTO_DST_PORT, struct.pack("!H", port)),
    )
    flags = attribute(_CTA_FILTER_ORIG_FLAGS, struct.pack("=I", _BY_PROTO_NUM | _BY_DST_PORT))
    payload = _GENERAL_HEADER + nested(_CTA_TUPLE_ORIG, protocol) + nested(_CTA_FILTER, flags)
    message = Message(kind=_CT_GET, flags=0, payload=payload)
    answers = netlink.dump(message, f"list connections to port {port}/udp")
    return [dict(attributes(answer, len(_GENERAL_HEADER))) for answer in answers]


def _end(direction: bytes, address: int, port: int) -> tuple[IPv4Address, int] | None:
    """One end of a connection's direction (a "tuple"): the attributes `address` and `port`."""
    parts = dict(attributes(direction))
    addresses = dict(attributes(parts.get(_CTA_TUPLE_IP, b"")))
    ports = dict(attributes(parts.get(_CTA_TUPLE_PROTO, b"")))
    if address not in addresses or port not in ports:
        return None
    return IPv4Address(addresses[address]), int.from_bytes(ports[port], "big")


def _delete(netlink: NetlinkSocket, payload: bytes) -> int:
    """Whether it was still there to be forgotten."""
    try:
        netlink.request(
            [Message(kind=_CT_DELETE, flags=NLM_F_ACK, payload=payload)], "forget a connection"
        )
    except LinkError as exc:
        if exc.errno == errno.ENOENT:
            return 0
        raise
    return 1
