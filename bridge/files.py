"""The content of a container's /etc/hosts and /etc/resolv.conf. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

_LOCAL = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def hosts_file(
    *,
    own: Sequence[tuple[str, Sequence[str]]] = (),
    extra: Iterable[tuple[str, str]] = (),
) -> str:
    """An /etc/hosts as Docker writes it (hosts(5)).

    `own`: each address of the container with its names, the full one first; `extra`: (name,
    address) of `extra_hosts`, which stand before the own lines.
    """
    lines = [f"{address}\t{names}" for address, names in _LOCAL]
    lines += [f"{address}\t{name}" for name, address in extra]
    lines += [f"{address}\t{' '.join(names)}" for address, names in own if names]
    return "".join(f"{line}\n" for line in lines)


def resolv_conf(
    host: str,
    *,
    nameserver: str | None = None,
    nameservers: Sequence[str] = (),
    search: Sequence[str] | None = None,
    options: Sequence[str] | None = None,
) -> str:
    """A resolv.conf(5) made from the `host`'s text.

    `nameserver` is our resolver, which takes the place of all others and wants single-label
    names asked as they are (ndots:0) unless the host or `options` say otherwise. Without it,
    `nameservers` or else the host's own. `search` and `options`, where given, replace the
    host's; a search list of "." is an empty one. Unknown directives are kept.
    """
    servers: list[str] = []
    host_search: list[str] = []
    host_options: list[str] = []
    others: list[str] = []
    for line in host.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        match words[0]:
            case "nameserver":
                servers += [word for word in words[1:2] if _is_address(word)]
            case "domain" | "search":
                host_search = words[1:]  # the last one counts
            case "options":
                host_options += words[1:]
            case _:
                others.append(line.strip())
    if nameserver is not None:
        servers = [nameserver]
    elif nameservers:
        servers = list(nameservers)
    found_search = list(host_search if search is None else search)
    if found_search == ["."]:
        found_search = []
    found_options = list(host_options if options is None else options)
    if nameserver is not None and not any(o.split(":")[0] == "ndots" for o in found_options):
        found_options.append("ndots:0")
    lines = [f"nameserver {server}" for server in servers]
    if found_search:
        lines.append(f"search {' '.join(found_search)}")
    if found_options:
        lines.append(f"options {' '.join(found_options)}")
    return "".join(f"{line}\n" for line in lines + others)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
