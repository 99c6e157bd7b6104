"""Subnets and addresses are chosen well."""

from __future__ import annotations

from ipaddress import IPv4Address
from ipaddress import IPv4Network as Subnet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import Network
from bridge.errors import AddressPoolExhausted, InvalidNetwork, SubnetOverlap
from bridge.ipam import (
    POOL,
    check_address,
    check_subnet,
    choose_address,
    choose_subnet,
    default_gateway,
    mac_of,
    subnet_prefix,
)

SMALL = Subnet("10.9.0.0/29")
GATEWAY = IPv4Address("10.9.0.1")


def test_the_same_seed_gets_the_same_subnet() -> None:
    assert choose_subnet("shop", []) == choose_subnet("shop", [])
    assert choose_subnet("shop", []) != choose_subnet("blog", [])


@pytest.mark.parametrize(
    ("endpoints", "prefix"), [(0, 24), (200, 24), (201, 23), (254, 23), (255, 22), (9999, 22)]
)
def test_a_network_of_many_has_room_for_each_twice_as_far_as_a_bridge_has(
    endpoints: int, prefix: int
) -> None:
    assert subnet_prefix(endpoints) == prefix
    subnet = choose_subnet("shop", [Subnet("10.192.0.0/13")], prefix=prefix)
    assert subnet.prefixlen == prefix and subnet.subnet_of(POOL)


def test_the_room_of_a_network_is_its_addresses_less_those_that_nobody_gets() -> None:
    def room(subnet: str, ip_range: str | None = None) -> int:
        network = Network(
            id="n", name="n", subnet=subnet, gateway="10.1.0.1", interface="b", ip_range=ip_range
        )
        return network.room

    assert room("10.1.0.0/24") == 253
    assert room("10.1.0.0/22") == 1021
    assert room("10.1.0.0/16") == 1023
    assert room("10.1.0.0/24", "10.1.0.128/25") == 127


def test_a_taken_subnet_leads_to_the_next() -> None:
    first = choose_subnet("shop", [])
    second = choose_subnet("shop", [first])
    assert second != first
    assert second.subnet_of(POOL)


@given(
    st.text(max_size=8),
    st.lists(
        st.builds(
            lambda address, prefix: Subnet((address, prefix), strict=False),
            st.integers(int(POOL.network_address) - 5000, int(POOL.broadcast_address) + 5000),
            st.integers(13, 32),
        ),
        max_size=40,
    ),
)
def test_a_chosen_subnet_never_meets_a_taken_one(seed: str, taken: list[Subnet]) -> None:
    try:
        chosen = choose_subnet(seed, taken)
    except AddressPoolExhausted:
        # Only right when truly nothing is left.
        assert sum(t.num_addresses for t in taken) >= POOL.num_addresses / 2
        return
    assert chosen.subnet_of(POOL)
    assert chosen.prefixlen == 24
    assert not any(chosen.overlaps(other) for other in taken)


def test_all_subnets_of_a_pool_are_given_out_and_no_more() -> None:
    pool = Subnet("10.9.0.0/22")
    taken: list[Subnet] = []
    for _ in range(4):
        taken.append(choose_subnet("shop", taken, pool=pool))
    assert sorted(taken) == list(pool.subnets(new_prefix=24))
    with pytest.raises(AddressPoolExhausted, match=r"/24 subnet in 10\.9\.0\.0/22"):
        choose_subnet("shop", taken, pool=pool)


def test_an_explicit_subnet_that_overlaps_is_refused_by_name() -> None:
    with pytest.raises(SubnetOverlap, match="route by eth0"):
        check_subnet(Subnet("10.9.0.0/24"), [(Subnet("10.0.0.0/8"), "route by eth0")])


def test_addresses_are_given_out_in_turn_and_reused_last() -> None:
    taken: set[IPv4Address] = set()
    given_out: list[str] = []
    last = None
    for _ in range(5):
        last = choose_address(SMALL, GATEWAY, taken, after=last)
        taken.add(last)
        given_out.append(str(last))
    assert given_out == [f"10.9.0.{n}" for n in range(2, 7)]
    with pytest.raises(AddressPoolExhausted):
        choose_address(SMALL, GATEWAY, taken, after=last)
    taken.remove(IPv4Address("10.9.0.3"))
    taken.remove(IPv4Address("10.9.0.5"))
    assert choose_address(SMALL, GATEWAY, taken, after=IPv4Address("10.9.0.4")) == IPv4Address(
        "10.9.0.5"
    )


def test_an_ip_range_limits_what_is_given_out() -> None:
    subnet, ip_range = Subnet("10.9.0.0/24"), Subnet("10.9.0.128/30")
    taken: set[IPv4Address] = set()
    for _ in range(4):
        taken.add(choose_address(subnet, GATEWAY, taken, ip_range=ip_range))
    assert taken == set(ip_range)
    with pytest.raises(AddressPoolExhausted):
        choose_address(subnet, GATEWAY, taken, ip_range=ip_range)


def test_the_gateway_is_the_first_address_as_docker_has_it() -> None:
    assert str(default_gateway(Subnet("10.9.0.0/24"))) == "10.9.0.1"
    assert str(default_gateway(Subnet("10.9.0.0/24"), Subnet("10.9.0.128/25"))) == "10.9.0.128"
    assert str(default_gateway(Subnet("10.9.0.0/24"), Subnet("10.9.0.0/25"))) == "10.9.0.1"


@pytest.mark.parametrize(
    ("address", "why"),
    [("10.8.0.2", "outside"), ("10.9.0.0", "not a host"), ("10.9.0.7", "not a host")],
)
def test_an_address_that_no_host_can_have_is_refused(address: str, why: str) -> None:
    with pytest.raises(InvalidNetwork, match=why):
        check_address(IPv4Address(address), SMALL, GATEWAY)


def test_the_gateways_address_is_refused() -> None:
    with pytest.raises(SubnetOverlap, match="gateway"):
        check_address(GATEWAY, SMALL, GATEWAY)


def test_a_hardware_address_is_local_and_unicast() -> None:
    assert mac_of(IPv4Address("10.9.0.2")) == "02:42:0a:09:00:02"
