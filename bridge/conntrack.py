"""Makes the kernel forget UDP "connections" that rules of yesterday still lead somewhere.

The nat rules see only the first packet of a connection, and of UDP a client that keeps
sending from one port is one connection for as long as it does. What it sent before the port
was published, or to a container that is gone, would be remembered for ever.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection
from ipaddress import IPv4Address

from bridge.errors import LinkError
from bridge.netlink import NLM_F_ACK, Message, NetlinkSocket, attribute, attributes, nested

# include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h; the filter's flags stand in
# net/netfilter/nf_internals.h
_NETLINK_NETFILTER = 12
_CT_GET, _CT_DELETE = 1 << 8 | 1, 1 << 8 | 2
_CTA_TUPLE_ORIG, _CTA_FILTER = 1, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_DST = 2
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3
_CTA_FILTER_ORIG_FLAGS = 1
_BY_PROTO_NUM, _BY_DST_PORT = 1 << 3, 1 << 5
_GENERAL_HEADER = struct.pack("!BBH", socket.AF_INET, 0, 0)  # struct nfgenmsg


def open_socket() -> NetlinkSocket:
    """A socket to keep: closing one makes the kernel wait for rules that were deleted."""
    return NetlinkSocket(_NETLINK_NETFILTER)


def forget_udp(
    netlink: NetlinkSocket, ports: Collection[int], local: Collection[IPv4Address]
) -> int:
    """Forget what was sent by UDP to one of `ports` on this host; how many connections.

    `local` are the host's own addresses; what passes by to others is not touched. A kernel
    that cannot filter by port (before 5.8) is left as it is. Raises LinkError.
    """
    forgotten = 0
    for port in ports:
        try:
            found = _find(netlink, port)
        except LinkError as exc:
            if exc.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return forgotten
            raise
        for destination, original in found:
            if destination in local or destination.is_loopback:
                payload = _GENERAL_HEADER + nested(_CTA_TUPLE_ORIG, original)
                forgotten += _delete(netlink, payload)
    return forgotten


def _find(netlink: NetlinkSocket, port: int) -> list[tuple[IPv4Address, bytes]]:
    """(where it was sent, its original direction as attributes) of each connection."""
    protocol = nested(
        _CTA_TUPLE_PROTO,
        attribute(_CTA_PROTO_NUM, struct.pack("!B", socket.IPPROTO_UDP)),
        attribute(_CTA_PROTO_DST_PORT, struct.pack("!H", port)),
    )
    flags = attribute(_CTA_FILTER_ORIG_FLAGS, struct.pack("=I", _BY_PROTO_NUM | _BY_DST_PORT))
    payload = _GENERAL_HEADER + nested(_CTA_TUPLE_ORIG, protocol) + nested(_CTA_FILTER, flags)
    found = []
    message = Message(kind=_CT_GET, flags=0, payload=payload)
    for answer in netlink.dump(message, f"list connections to port {port}/udp"):
        original = dict(attributes(answer, len(_GENERAL_HEADER))).get(_CTA_TUPLE_ORIG, b"")
        addresses = dict(attributes(dict(attributes(original)).get(_CTA_TUPLE_IP, b"")))
        if _CTA_IP_V4_DST in addresses:
            found.append((IPv4Address(addresses[_CTA_IP_V4_DST]), original))
    return found


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
