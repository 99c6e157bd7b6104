"""The one-line notations of a Compose file: ports, mounts, devices.

Each function takes the text and gives the keys of the long form. Sources: Compose
Specification, services: ports, volumes, devices (short syntax); the reference implementation
for the order of a range's ports and for what is cleaned.
"""

from __future__ import annotations

import ipaddress
import posixpath
from typing import Any

_PROTOCOLS = frozenset({"tcp", "udp", "sctp"})
_PROPAGATIONS = frozenset({"rprivate", "private", "rshared", "shared", "rslave", "slave"})
_MAX_PORT = 65535


def parse_ports(text: str) -> list[dict[str, Any]]:
    """`[ip:][host[-host]:]container[-container][/protocol]`, one entry for each container port.

    Raises ValueError.
    """
    parts = text.split(":")
    if len(parts) > 3:
        parts = [":".join(parts[:-2]), *parts[-2:]]
    container = parts[-1]
    host = parts[-2] if len(parts) > 1 else ""
    address = parts[0] if len(parts) > 2 else ""
    container, _, protocol = container.partition("/")
    protocol = protocol.partition("/")[0].lower() or "tcp"
    if not container:
        raise ValueError(f"{text!r} names no container port")
    if protocol not in _PROTOCOLS:
        raise ValueError(f"protocol {protocol!r} is not one of tcp, udp, sctp")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address and not is_ip_address(address):
        raise ValueError(f"{address!r} is not an IP address")
    first, last = _port_range(container, "container port")
    entries = []
    host_first = host_last = None
    if host:
        host_first, host_last = _port_range(host, "published port")
        if last - first != host_last - host_first and first != last:
            raise ValueError(f"{host} and {container} are ranges of different lengths")
    for offset in range(last - first + 1):
        entry: dict[str, Any] = {"mode": "ingress"}
        if address:
            entry["host_ip"] = address
        entry["target"] = first + offset
        if host_first is not None:
            published = str(host_first + offset)
            if first == last and host_first != host_last:
                published += f"-{host_last}"
            entry["published"] = published
        entry["protocol"] = protocol
        entries.append(entry)
    # The reference implementation goes through a map whose keys it sorts as text.
    entries.sort(key=lambda entry: str(entry["target"]))
    return entries


def _port_range(text: str, what: str) -> tuple[int, int]:
    start, separator, end = text.partition("-")
    first = _port(start, what)
    last = _port(end.partition("-")[0], what) if separator else first
    if last < first:
        raise ValueError(f"{what} range {text} runs backwards")
    return first, last


def _port(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{what} {text!r} is not a number")
    value = int(text) if len(text) < 20 else _MAX_PORT + 1
    if value > _MAX_PORT:
        raise ValueError(f"{what} {text} is out of range 1–{_MAX_PORT}")
    return value


def check_published(text: str) -> None:
    """Raises ValueError when `text` is not a port, a range of ports or empty."""
    if text:
        _port_range(text, "published port")


def is_ip_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address (without a zone)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def parse_mount(text: str) -> tuple[dict[str, Any], list[str]]:
    """`[source:]target[:options]` as a mount's keys, and the options that have no meaning.

    A source that starts like a path is a bind mount, any other a named volume.
    Raises ValueError.
    """
    if not text:
        raise ValueError("mount is empty")
    parts = _split_mount(text)
    if any(not part for part in parts):
        raise ValueError(f"{text!r} has an empty part between colons")
    if len(parts) > 3:
        raise ValueError(f"{text!r} has too many colons")
    mount: dict[str, Any] = {}
    bind: dict[str, Any] = {}
    volume: dict[str, Any] = {}
    ignored = []
    source = parts[0] if len(parts) > 1 else ""
    target = parts[1] if len(parts) > 1 else parts[0]
    for option in parts[2].split(",") if len(parts) > 2 else ():
        if option in ("ro", "rw"):
            mount["read_only"] = option == "ro"
        elif option == "nocopy":
            volume["nocopy"] = True
        elif option in _PROPAGATIONS:
            bind["propagation"] = option
        elif option in ("z", "Z"):
            bind["selinux"] = option
        else:
            ignored.append(option)
    if mount.get("read_only") is False:
        del mount["read_only"]
    if is_path(source):
        mount["type"] = "bind"
        mount["bind"] = {**bind, "create_host_path": True}
        if volume:
            mount["volume"] = volume
    else:
        mount["type"] = "volume"
        if len(text) > 2:
            mount["volume"] = volume
        if bind:
            mount["bind"] = bind
    if source:
        mount["source"] = source
    mount["target"] = posixpath.normpath(target) if len(text) > 2 else target
    return mount, ignored


def _split_mount(text: str) -> list[str]:
    # A colon within ${…} belongs to the variable: texts are also read before substitution.
    parts = [""]
    depth = 0
    for position, char in enumerate(text):
        if char == "$" and text.startswith("{", position + 1):
            depth += 1
        elif char == "}" and depth:
            depth -= 1
        if char == ":" and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def is_path(source: str) -> bool:
    """Whether a mount's source is a path on the host rather than a volume's name."""
    return source.startswith((".", "/", "~"))


def parse_device(text: str) -> dict[str, Any]:
    """`source[:target[:permissions]]`. Raises ValueError."""
    parts = text.split(":")
    if len(parts) > 3:
        raise ValueError(f"{text!r} has too many colons")
    return {
        "source": parts[0],
        "target": parts[1] if len(parts) > 1 else parts[0],
        "permissions": parts[2] if len(parts) > 2 else "rwm",
    }
