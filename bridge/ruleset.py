"""The packet filter of one instance as data, and as the text that nft(8) reads.

One table of family ip. Its chains never change; networks and ports are elements of sets and
maps, and each published port is a small chain of its own behind a verdict map. So a network
or port that comes or goes, or a port that moves from one backend to others, is a handful of
element changes in one transaction, and what is connected stays connected: only the first
packet of a connection meets the nat chains.

What the chains see to:
- raw-prerouting, before any address is rewritten: a container sends from its own subnet only;
  a container's address is reached from its own network only (isolation between networks,
  and no way around published ports for a neighbour with a route); the host's loopback is
  not reached from a network; an internal network reaches itself only.
- nat-prerouting, nat-output: DNS asked of a gateway goes to the resolver's port; published
  ports go to their backends. A port published on 127.0.0.1 is never looked at for packets
  from outside.
- forward: into a network goes what was published or is an answer, nothing else.
- nat-postrouting: what leaves a network carries the host's address; what comes from the
  host's loopback, or back into the network that it came from, carries the gateway's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PORT_MAPS = ("published", "published-any")

_SETS: Mapping[str, str] = {
    "set bridges": "type ifname;",
    "set internal": "type ifname;",
    "set same-bridge": "type ifname . ifname;",
    "set subnets": "type ipv4_addr; flags interval;",
    "set members": "type ifname . ipv4_addr; flags interval;",
    "set masqueraded": "type ipv4_addr; flags interval;",
    "map resolvers": "type ipv4_addr : inet_service;",
    "map published": "type ipv4_addr . inet_proto . inet_service : verdict;",
    "map published-any": "type inet_proto . inet_service : verdict;",
}

_CHAINS = """\
  chain raw-prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges iifname . ip saddr != @members counter drop comment "forged source"
    iifname != "lo" ip daddr @subnets iifname . ip daddr != @members counter drop \
comment "direct access"
    iifname @bridges ip daddr 127.0.0.0/8 counter drop comment "loopback from a network"
    iifname @internal ip daddr != { 224.0.0.0/4, 255.255.255.255 } \
iifname . ip daddr != @members counter drop comment "internal"
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname . oifname @same-bridge accept
    iifname @internal counter drop comment "internal"
    oifname @internal counter drop comment "internal"
    oifname @bridges ct state established,related accept
    oifname @bridges ct status dnat accept
    oifname @bridges counter drop comment "unpublished port"
  }
  chain publish {
    ip daddr . meta l4proto . th dport vmap @published
    meta l4proto . th dport vmap @published-any
  }
  chain nat-prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    iifname @bridges meta l4proto { tcp, udp } th dport 53 redirect to :ip daddr map @resolvers
    ip daddr != 127.0.0.0/8 fib daddr type local jump publish
  }
  chain nat-output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }
  chain nat-postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    oifname . ip saddr @members ct status dnat masquerade
    oifname != "lo" ip saddr @masqueraded oifname . ip saddr != @members masquerade
  }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRules:
    """What the filter knows of a network: `subnet` is CIDR."""

    interface: str
    subnet: str
    gateway: str
    internal: bool = False
    masquerade: bool = True
    isolated: bool = False
    resolver_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Backend:
    """A container's port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRules:
    """A published port: `host_ip` "" for all addresses; new connections spread over `backends`."""

    host_ip: str
    host_port: int
    protocol: str
    backends: tuple[Backend, ...]

    @property
    def chain(self) -> str:
        """The name of the port's own chain."""
        where = f"-{self.host_ip}" if self.host_ip else ""
        return f"to-{self.protocol}-{self.host_port}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """All rules of an instance; equal values make equal rules."""

    networks: tuple[NetworkRules, ...] = ()
    ports: tuple[PortRules, ...] = ()

    def elements(self) -> dict[str, frozenset[str]]:
        """Set or map (as in "set bridges") -> its elements."""
        found: dict[str, set[str]] = {name: set() for name in _SETS}
        for network in self.networks:
            link = f'"{network.interface}"'
            found["set bridges"].add(link)
            found["set subnets"].add(network.subnet)
            found["set members"].add(f"{link} . {network.subnet}")
            if network.internal:
                found["set internal"].add(link)
            if network.masquerade:
                found["set masqueraded"].add(network.subnet)
            if not network.isolated:
                found["set same-bridge"].add(f"{link} . {link}")
            if network.resolver_port is not None:
                found["map resolvers"].add(f"{network.gateway} : {network.resolver_port}")
        for port in self.ports:
            if not port.backends:
                continue
            service = f"{port.protocol} . {port.host_port} : goto {port.chain}"
            if port.host_ip:
                found["map published"].add(f"{port.host_ip} . {service}")
            else:
                found["map published-any"].add(service)
        return {name: frozenset(values) for name, values in found.items()}

    def port_chains(self) -> dict[str, tuple[str, ...]]:
        """Chain -> its rules."""
        return {port.chain: _balance(port) for port in self.ports if port.backends}


EMPTY = Ruleset()


def _balance(port: PortRules) -> tuple[str, ...]:
    """A rule for each backend, which takes its share of what the rules before it have left.

    Rules and not a map from numbers to backends: a chain's rules are exchanged at one stroke,
    while a packet that met the old rule could look for its number in a map that is just gone
    (before Linux 6.17), and be refused.
    """
    rules = []
    for position, backend in enumerate(port.backends):
        left = len(port.backends) - position
        share = f"numgen random mod {left} 0 " if left > 1 else ""
        rules.append(
            f"meta l4proto {port.protocol} {share}dnat ip to {backend.address}:{backend.port}"
        )
    return tuple(rules)


def install(table: str, ruleset: Ruleset) -> str:
    """Text that replaces whatever `table` holds, in one transaction."""
    sets = "".join(f"  {name} {{ {kind} }}\n" for name, kind in _SETS.items())
    return (
        f"table ip {table}\ndelete table ip {table}\n"
        f"table ip {table} {{\n{sets}{_CHAINS}}}\n"
        f"{difference(table, EMPTY, ruleset)}"
    )


def remove(table: str) -> str:
    """Text that removes `table`, whether or not it is there."""
    return f"table ip {table}\ndelete table ip {table}\n"


def difference(table: str, old: Ruleset, new: Ruleset) -> str:
    """Text that turns the rules `old` into `new`, in one transaction; "" when they are equal.

    A port that stays is never without its map element in between; a chain that goes is let
    go of by the map first.
    """
    return "".join(f"{line}\n" for line in _changes(table, old, new))


def _changes(table: str, old: Ruleset, new: Ruleset) -> Iterator[str]:
    was, wanted = old.elements(), new.elements()
    chains_before, chains_now = old.port_chains(), new.port_chains()
    for chain in sorted(chains_now):
        rules = chains_now[chain]
        if chain not in chains_before:
            yield f"add chain ip {table} {chain}"
        elif rules == chains_before[chain]:
            continue
        else:
            yield f"flush chain ip {table} {chain}"
        for rule in rules:
            yield f"add rule ip {table} {chain} {rule}"
    for name in _SETS:
        gone = was[name] - wanted[name]
        if gone:
            yield f"delete element ip {table} {_set_name(name)} {{ {_keys(name, gone)} }}"
    for name in _SETS:
        come = wanted[name] - was[name]
        if come:
            yield f"add element ip {table} {_set_name(name)} {{ {', '.join(sorted(come))} }}"
    for chain in sorted(chains_before.keys() - chains_now.keys()):
        yield f"delete chain ip {table} {chain}"


def udp_ports_moved(old: Ruleset | None, new: Ruleset) -> dict[int, frozenset[Backend]]:
    """The host's UDP ports that lead elsewhere, or nowhere, or somewhere at last, with the
    backends that they lead to now.

    Without `old` nothing is known to have moved.
    """
    if old is None:
        return {}
    moved = {p.host_port for p in set(old.ports) ^ set(new.ports) if p.protocol == "udp"}
    now = {
        port: [p for p in new.ports if (p.protocol, p.host_port) == ("udp", port)] for port in moved
    }
    return {port: frozenset(b for p in now[port] for b in p.backends) for port in moved}


def _set_name(name: str) -> str:
    return name.partition(" ")[2]


def _keys(name: str, elements: frozenset[str]) -> str:
    """What names `elements` for deletion: of a map's, the part before the value."""
    if name.startswith("map"):
        return ", ".join(sorted(element.rpartition(" : ")[0] for element in elements))
    return ", ".join(sorted(elements))
