"""What other packet filter tables of this host do that matters to ours: read, never changed.

Pure functions over nft(8)'s listings, which print protocols as numbers here.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable

TABLE_PREFIX = "bayplan-"

_TABLE = re.compile(r"^table ip (\S+)", re.MULTILINE)
_ELEMENT = re.compile(r"(?:(\d+\.\d+\.\d+\.\d+) \. )?(6|17) \. (\d+) : goto ")
_PROTOCOLS = {str(socket.IPPROTO_TCP): "tcp", str(socket.IPPROTO_UDP): "udp"}
_SECTION = re.compile(r"^table (?P<family>\S+) (?P<table>\S+)|^\s+chain (?P<chain>\S+)")
_BLOCKING = re.compile(r"type filter hook forward priority .*policy drop;")


def other_instances(tables: str, own: str) -> tuple[str, ...]:
    """The tables of other instances, from the output of `list tables ip`."""
    names = _TABLE.findall(tables)
    return tuple(name for name in names if name.startswith(TABLE_PREFIX) and name != own)


def published_ports(maps: Iterable[str]) -> set[tuple[str, int, str]]:
    """(address or "", port, protocol) of each element in listings of an instance's port maps."""
    return {
        (address, int(port), _PROTOCOLS[protocol])
        for listing in maps
        for address, protocol, port in _ELEMENT.findall(listing)
    }


def meets(ports: set[tuple[str, int, str]], host_ip: str, host_port: int, protocol: str) -> bool:
    """Whether one of `ports` is the same; "" stands for every address."""
    return any(
        (port, kind) == (host_port, protocol) and (not address or not host_ip or address == host_ip)
        for address, port, kind in ports
    )


def blocking_chains(chains: str) -> tuple[str, ...]:
    """The chains that drop what nobody accepts on its way through the host, from `list chains`.

    An accept in our table does not overrule them: each table has its say (nft(8), "Rules").
    """
    found = []
    where = chain = ""
    for line in chains.splitlines():
        section = _SECTION.match(line)
        if section and section["table"]:
            where = f"{section['family']} {section['table']}"
        elif section:
            chain = section["chain"]
        elif _BLOCKING.search(line):
            found.append(f"{where} {chain}")
    return tuple(found)
