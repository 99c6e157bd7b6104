"""What networks, endpoints and published ports are, as values.

Names and meanings are Compose's and Docker's (docs.docker.com/reference/compose-file/networks,
"driver_opts" of the bridge driver).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, NetmaskValueError
from ipaddress import IPv4Network as Subnet

from bridge.errors import InvalidNetwork, Unsupported

OPTION_NAME = "com.docker.network.bridge.name"
OPTION_ICC = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
OPTION_MTU = "com.docker.network.driver.mtu"

ANY_ADDRESS = "0.0.0.0"
PROTOCOLS = ("tcp", "udp")

_OPTIONS = (OPTION_NAME, OPTION_ICC, OPTION_MASQUERADE, OPTION_HOST_BINDING, OPTION_MTU)
_LINK_NAME_LENGTH = 15  # IFNAMSIZ less the terminating zero
_SMALLEST_MTU = 68  # RFC 791
DEFAULT_MTU = 1500  # of a bridge and a veth, unless told otherwise
MOST_ENDPOINTS = 1023  # on one bridge (BR_MAX_PORTS in the kernel's net/bridge/br_private.h)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """A network to create. `subnet` is CIDR, `gateway` an address in it; None: chosen here.

    `ip_range` (CIDR, inside the subnet) limits the addresses that are given out. `mtu` in
    bytes; None, or 0, for that of the links which carry the host's default routes when the
    network is made (`addresses.uplink_mtu`), and for whatever it is of one that stands.
    `options` are the bridge driver's, of which com.docker.network.driver.mtu is the MTU too.
    For how many `endpoints` at least there is to be room in a subnet that is chosen here.
    """

    id: str
    name: str
    endpoints: int = 0
    subnet: str | None = None
    gateway: str | None = None
    ip_range: str | None = None
    internal: bool = False
    mtu: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network that exists: `subnet` CIDR, `gateway` the bridge's own address in it.

    `resolver_port` is where the DNS of this network listens on the gateway, None if nowhere.
    """

    id: str
    name: str
    subnet: str
    gateway: str
    interface: str
    ip_range: str | None = None
    internal: bool = False
    mtu: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    resolver_port: int | None = None

    @property
    def room(self) -> int:
        """How many endpoints it can have: as many as it has addresses, and a bridge ports."""
        subnet = Subnet(self.subnet)
        within = subnet if self.ip_range is None else Subnet(self.ip_range)
        never = (subnet.network_address, subnet.broadcast_address, IPv4Address(self.gateway))
        addresses = within.num_addresses - sum(address in within for address in never)
        return min(addresses, MOST_ENDPOINTS)

    @property
    def isolated_ports(self) -> bool:
        """Whether containers on it must not talk to each other (enable_icc=false)."""
        return not flag(self.options, OPTION_ICC, default=True)

    @property
    def masquerade(self) -> bool:
        """Whether its traffic leaves the host under the host's address."""
        return not self.internal and flag(self.options, OPTION_MASQUERADE, default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """A sandbox's place on a network.

    The same `lease_key` gets the same address again (default: the sandbox's id).
    `priority`: the highest among the networks that lead out has the default route.
    """

    network_id: str
    address: str | None = None
    mac: str | None = None
    aliases: tuple[str, ...] = ()
    interface: str | None = None
    lease_key: str | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint that stands: `interface` is the name inside, `link` the one on the host."""

    sandbox_id: str
    network_id: str
    address: str
    prefix: int
    gateway: str
    mac: str
    interface: str
    link: str
    aliases: tuple[str, ...] = ()
    lease_key: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """A port of a container on the host; `host_ip` "" means every IPv4 address.

    `host_port` 0 in a request means any free one.
    """

    container_port: int
    host_ip: str = ""
    host_port: int = 0
    protocol: str = "tcp"


def flag(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    """A boolean driver option, in the spellings that Go's strconv.ParseBool takes."""
    value = options.get(name)
    if value is None:
        return default
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise InvalidNetwork(f"option {name} is {value!r}, not a boolean")


def parse_subnet(text: str, what: str) -> Subnet:
    """An IPv4 subnet from CIDR with no host bits set; raises InvalidNetwork."""
    if ":" in text:
        raise Unsupported(f"{what} {text} is IPv6, and networks are IPv4 only")
    try:
        return Subnet(text)
    except (AddressValueError, NetmaskValueError, ValueError) as exc:
        raise InvalidNetwork(f"{what} {text!r} is not an IPv4 subnet: {exc}") from exc


def parse_address(text: str, what: str) -> IPv4Address:
    """An IPv4 address; raises InvalidNetwork."""
    if ":" in text:
        raise Unsupported(f"{what} {text} is IPv6, and networks are IPv4 only")
    try:
        return IPv4Address(text)
    except AddressValueError as exc:
        raise InvalidNetwork(f"{what} {text!r} is not an IPv4 address") from exc


def check_network(config: NetworkConfig) -> None:
    """Refuse what cannot be right or is not offered, before anything is changed.

    Raises InvalidNetwork or Unsupported.
    """
    if not config.id or not config.name:
        raise InvalidNetwork("a network needs an id and a name")
    for option in sorted(config.options):
        if option not in _OPTIONS:
            raise Unsupported(
                f"network {config.name}: option {option} is not supported",
                hint=f"supported are {', '.join(_OPTIONS)}",
            )
    for option in (OPTION_ICC, OPTION_MASQUERADE):
        flag(config.options, option, default=True)
    if OPTION_NAME in config.options:
        check_link_name(config.options[OPTION_NAME])
    if OPTION_HOST_BINDING in config.options:
        parse_address(config.options[OPTION_HOST_BINDING], f"option {OPTION_HOST_BINDING}")
    network_mtu(config)
    if config.subnet is None:
        if config.gateway is not None or config.ip_range is not None:
            raise InvalidNetwork(f"network {config.name}: gateway and ip_range need a subnet")
        return
    subnet = parse_subnet(config.subnet, f"network {config.name}: subnet")
    if subnet.prefixlen > 30:
        raise InvalidNetwork(f"network {config.name}: subnet {subnet} is smaller than a /30")
    if config.gateway is not None:
        gateway = parse_address(config.gateway, f"network {config.name}: gateway")
        check_host_address(gateway, subnet, f"network {config.name}: gateway")
    if config.ip_range is not None:
        ip_range = parse_subnet(config.ip_range, f"network {config.name}: ip_range")
        if not ip_range.subnet_of(subnet):
            raise InvalidNetwork(
                f"network {config.name}: ip_range {ip_range} is outside subnet {subnet}"
            )


def check_host_address(address: IPv4Address, subnet: Subnet, what: str) -> None:
    """`address` must be one that a host of `subnet` can have."""
    if address not in subnet:
        raise InvalidNetwork(f"{what} {address} is outside subnet {subnet}")
    if address in (subnet.network_address, subnet.broadcast_address):
        raise InvalidNetwork(f"{what} {address} is not a host's address in subnet {subnet}")


def check_link_name(name: str) -> None:
    """What the kernel takes as a link's name (dev_valid_name in net/core/dev.c)."""
    good = 0 < len(name.encode()) <= _LINK_NAME_LENGTH and name not in (".", "..")
    if not good or any(c in "/:" or c.isspace() or not c.isprintable() for c in name):
        raise InvalidNetwork(f"{name!r} is not a name for a network interface")
    if any(c in '"\\*' for c in name):
        raise InvalidNetwork(f"interface name {name!r} holds a character that rules cannot hold")


def network_mtu(config: NetworkConfig) -> int | None:
    """The MTU asked for, as a field or as Docker's option."""
    if config.mtu is not None:
        mtu = config.mtu
    elif OPTION_MTU in config.options:
        text = config.options[OPTION_MTU]
        if not (text.isascii() and text.isdigit()):
            raise InvalidNetwork(f"option {OPTION_MTU} is {text!r}, not a number")
        mtu = int(text)
    else:
        return None
    if mtu == 0:
        return None
    if not _SMALLEST_MTU <= mtu <= 65535:
        raise InvalidNetwork(f"network {config.name}: mtu {mtu} is not within 68 and 65535")
    return mtu


def check_port(port: PublishedPort) -> None:
    """Refuse a published port that cannot be right or is not offered."""
    if port.protocol not in PROTOCOLS:
        raise Unsupported(
            f"port {port.container_port}/{port.protocol}: only tcp and udp can be published"
        )
    if not 0 < port.container_port <= 65535:
        raise InvalidNetwork(f"container port {port.container_port} is not within 1 and 65535")
    if not 0 <= port.host_port <= 65535:
        raise InvalidNetwork(f"host port {port.host_port} is not within 0 and 65535")
    if ":" in port.host_ip:
        raise Unsupported(
            f"port [{port.host_ip}]:{port.host_port}/{port.protocol}: "
            "publishing on an IPv6 address is not supported",
            hint="publish on an IPv4 address, or on none to take all of them",
        )
    if port.host_ip:
        address = parse_address(port.host_ip, "host address")
        if address.is_multicast or address == IPv4Address("255.255.255.255"):
            raise InvalidNetwork(f"host address {address} is not an address of a host")


def check_mac(text: str) -> None:
    """A unicast hardware address as six colon-separated bytes."""
    parts = text.split(":")
    digits = set("0123456789abcdefABCDEF")
    if len(parts) != 6 or any(len(part) != 2 or not set(part) <= digits for part in parts):
        raise InvalidNetwork(f"{text!r} is not a hardware address")
    if int(parts[0], 16) & 1:
        raise InvalidNetwork(f"hardware address {text} is a multicast address")
