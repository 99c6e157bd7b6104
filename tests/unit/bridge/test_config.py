"""What cannot be right is refused before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.config import (
    NetworkConfig,
    PublishedPort,
    check_link_name,
    check_mac,
    check_network,
    check_port,
    network_mtu,
)
from bridge.errors import InvalidNetwork, NetworkError, Unsupported


def config(**settings: Any) -> NetworkConfig:
    return NetworkConfig(**{"id": "n1", "name": "front", **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"subnet": "10.9.0.0/24"},
        {"subnet": "10.9.0.0/24", "gateway": "10.9.0.254", "ip_range": "10.9.0.128/25"},
        {"internal": True, "mtu": 9000, "labels": {"a": "b"}},
        {"options": {"com.docker.network.bridge.name": "shop0"}},
        {"options": {"com.docker.network.driver.mtu": "1450"}},
    ],
)
def test_a_sensible_network_is_taken(settings: dict[str, Any]) -> None:
    check_network(config(**settings))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"id": ""}, "needs an id"),
        ({"subnet": "10.9.0.0/33"}, "not an IPv4 subnet"),
        ({"subnet": "10.9.0.1/24"}, "host bits"),
        ({"subnet": "10.9.0.0/31"}, "smaller than a /30"),
        ({"subnet": "fd00::/64"}, "IPv6"),
        ({"gateway": "10.9.0.1"}, "need a subnet"),
        ({"subnet": "10.9.0.0/24", "gateway": "10.8.0.1"}, "outside subnet"),
        ({"subnet": "10.9.0.0/24", "gateway": "10.9.0.255"}, "not a host's"),
        ({"subnet": "10.9.0.0/24", "ip_range": "10.8.0.0/25"}, "outside subnet"),
        ({"mtu": 10}, "not within"),
        ({"options": {"com.docker.network.driver.mtu": "big"}}, "not a number"),
        ({"options": {"com.docker.network.bridge.enable_icc": "maybe"}}, "not a boolean"),
        ({"options": {"com.docker.network.bridge.name": 'x"; flush'}}, "not a name"),
        ({"options": {"com.example.colour": "red"}}, "com.example.colour is not supported"),
    ],
)
def test_a_network_that_cannot_be_right_is_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(NetworkError, match=why):
        check_network(config(**settings))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "a:b", "x" * 16, 'a"b', "a\nb", "a*"]
)
def test_a_name_that_no_link_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidNetwork):
        check_link_name(name)


def test_the_mtu_comes_from_the_field_or_the_option() -> None:
    option = {"com.docker.network.driver.mtu": "1450"}
    assert network_mtu(config(options=option)) == 1450
    assert network_mtu(config(mtu=1400, options=option)) == 1400
    assert network_mtu(config()) is None


@pytest.mark.parametrize(
    ("port", "error", "why"),
    [
        (PublishedPort(container_port=80, protocol="sctp"), Unsupported, "only tcp and udp"),
        (PublishedPort(container_port=80, host_ip="::1"), Unsupported, "IPv6"),
        (PublishedPort(container_port=80, host_ip="localhost"), InvalidNetwork, "localhost"),
        (PublishedPort(container_port=80, host_ip="224.0.0.1"), InvalidNetwork, "not an address"),
        (PublishedPort(container_port=0), InvalidNetwork, "container port 0"),
        (PublishedPort(container_port=80, host_port=65536), InvalidNetwork, "host port 65536"),
    ],
)
def test_a_port_that_cannot_be_published_is_refused(
    port: PublishedPort, error: type[NetworkError], why: str
) -> None:
    with pytest.raises(error, match=why):
        check_port(port)


@pytest.mark.parametrize("mac", ["", "02:00", "02:00:00:00:00:0g", "01:00:00:00:00:01"])
def test_a_hardware_address_that_no_link_can_have_is_refused(mac: str) -> None:
    with pytest.raises(InvalidNetwork):
        check_mac(mac)
