"""Which subnet a network gets and which address an endpoint: pure functions over what is taken.

Small subnets from a wide pool: the pool below holds 8192 networks of 254 addresses, where
Docker's defaults hold 31. One that many containers want to be on gets a larger one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address
from ipaddress import IPv4Network as Subnet

from bridge.config import MOST_ENDPOINTS, check_host_address
from bridge.errors import AddressPoolExhausted, SubnetOverlap

POOL = Subnet("10.192.0.0/11")
PREFIX = 24
# From more endpoints than that on there is room for each twice, as in an update of all at once.
_SMALL = 200


def subnet_prefix(endpoints: int) -> int:
    """The prefix length of a subnet for so many endpoints, of which a bridge bounds the number."""
    if endpoints <= _SMALL:
        return PREFIX
    wanted = min(2 * endpoints, MOST_ENDPOINTS - 2) + 3
    return 32 - (wanted - 1).bit_length()


def choose_subnet(
    seed: str, taken: Iterable[Subnet], *, pool: Subnet = POOL, prefix: int = PREFIX
) -> Subnet:
    """A free subnet of the pool; the same `seed` starts the search at the same place.

    So a network that is made again tends to get the subnet that it had, and two instances
    that choose at the same moment rarely want the same one. Raises AddressPoolExhausted.
    """
    size = 1 << (pool.max_prefixlen - prefix)
    count = 1 << (prefix - pool.prefixlen)
    blocked: set[int] = set()
    base = int(pool.network_address)
    for other in taken:
        if not other.overlaps(pool):
            continue
        first = max(0, (int(other.network_address) - base) // size)
        last = min(count - 1, (int(other.broadcast_address) - base) // size)
        blocked.update(range(first, last + 1))
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") % count
    for step in range(count):
        index = (start + step) % count
        if index not in blocked:
            return Subnet((base + index * size, prefix))
    raise AddressPoolExhausted(
        f"/{prefix} subnet in {pool}", hint="remove networks, or give this one a subnet"
    )


def check_subnet(subnet: Subnet, taken: Iterable[tuple[Subnet, str]]) -> None:
    """Raise SubnetOverlap when an explicit subnet meets one of `taken` (subnet, its name)."""
    for other, name in taken:
        if subnet.overlaps(other):
            raise SubnetOverlap(str(subnet), f"{other} ({name})")


def default_gateway(subnet: Subnet, ip_range: Subnet | None = None) -> IPv4Address:
    """The first host address of the range if there is one, else of the subnet (as Docker)."""
    start = ip_range or subnet
    if start.network_address == subnet.network_address:
        return subnet.network_address + 1
    return start.network_address


def choose_address(
    subnet: Subnet,
    gateway: IPv4Address,
    taken: Collection[IPv4Address],
    *,
    after: IPv4Address | None = None,
    ip_range: Subnet | None = None,
) -> IPv4Address:
    """The next free address behind `after`, round and round.

    An address that was given back is not given out again at once: caches of names and
    connections that still know its last owner have time to forget. Raises
    AddressPoolExhausted.
    """
    within = ip_range or subnet
    first = int(within.network_address)
    count = within.num_addresses
    never = {subnet.network_address, subnet.broadcast_address, gateway}
    start = 0 if after is None or after not in within else int(after) - first + 1
    for step in range(count):
        candidate = IPv4Address(first + (start + step) % count)
        if candidate not in never and candidate not in taken:
            return candidate
    raise AddressPoolExhausted(f"address in {within}")


def check_address(address: IPv4Address, subnet: Subnet, gateway: IPv4Address) -> None:
    """Raise InvalidNetwork or SubnetOverlap when an explicit address cannot be an endpoint's."""
    check_host_address(address, subnet, "address")
    if address == gateway:
        raise SubnetOverlap(str(address), "the network's gateway", hint="choose another address")


def mac_of(address: IPv4Address) -> str:
    """The hardware address of an endpoint: locally administered, from its IPv4 address.

    An address that moves to another container keeps it, so that no neighbour's table is
    out of date.
    """
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)
