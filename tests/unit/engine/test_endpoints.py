"""A service's networks and ports as the bridge understands them."""

from __future__ import annotations

import pytest

from orchestrator.engine.endpoints import (
    endpoint_config,
    network_config,
    network_order,
    port_requests,
)
from orchestrator.engine.errors import EngineError

SPEC = {
    "service": {
        "name": "web",
        "networks": {
            "back": {"aliases": ["api"], "ipv4_address": "10.0.0.9"},
            "front": {"priority": 5},
        },
    },
    "networks": {"back": "shop_back", "front": "shop_front"},
}


def test_a_replica_keeps_its_lease_key_and_its_names() -> None:
    made = endpoint_config(
        SPEC, "back", "n1", project="shop", number=2, names=("web", "shop-web-2")
    )
    assert made.lease_key == "shop/web/2"
    assert made.aliases == ("web", "shop-web-2", "api")
    assert made.address == "10.0.0.9"


def test_the_network_with_the_highest_priority_comes_first() -> None:
    assert network_order(SPEC) == ("front", "back")


def test_ports_may_be_fixed_free_or_a_range() -> None:
    requests = port_requests(
        {
            "ports": [
                {"target": 80, "published": "8080", "host_ip": "127.0.0.1"},
                {"target": 53, "protocol": "udp"},
                {"target": 90, "published": "9000-9002"},
            ]
        }
    )
    assert [(r.container_port, r.host_ip, r.protocol, r.candidates) for r in requests] == [
        (80, "127.0.0.1", "tcp", (8080,)),
        (53, "", "udp", (0,)),
        (90, "", "tcp", (9000, 9001, 9002)),
    ]


def test_a_network_takes_its_pool_options_and_labels() -> None:
    made = network_config(
        "n1",
        "shop_back",
        "shop",
        "back",
        {
            "internal": True,
            "ipam": {"config": [{"subnet": "10.9.0.0/24", "gateway": "10.9.0.254"}]},
            "driver_opts": {"com.docker.network.driver.mtu": "1400"},
            "labels": {"tier": "back"},
        },
    )
    assert (made.subnet, made.gateway, made.internal) == ("10.9.0.0/24", "10.9.0.254", True)
    assert made.labels["tier"] == "back"
    assert made.labels["com.docker.compose.network"] == "back"
    assert made.options == {"com.docker.network.driver.mtu": "1400"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"driver": "overlay"}, "driver overlay is not supported"),
        ({"enable_ipv6": True}, "IPv6 is not supported"),
        ({"ipam": {"config": [{}, {}]}}, "more than one subnet"),
    ],
)
def test_networks_that_cannot_be_had_are_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        network_config("n1", "shop_back", "shop", "back", spec)
