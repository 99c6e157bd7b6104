"""Who reaches whom: between containers, from the host, from a neighbour, and not otherwise."""

from __future__ import annotations

import socket

import pytest

from bridge.config import PublishedPort
from tests.integration.bridge.lab import LAN_HOST, LAN_NEIGHBOUR, Lab


def test_containers_of_a_network_reach_each_other_by_address(lab: Lab) -> None:
    network = lab.network("front")
    web, store = lab.container("web", network), lab.container("store", network)
    store.serve(6379, "store")
    assert web.ask(store.address, 6379) == ("store", web.address)
    assert web.ask(store.address, 6379, protocol="udp") == ("store", web.address)


def test_containers_of_a_network_do_so_without_bridge_netfilter_too(lab: Lab) -> None:
    lab.bridge_netfilter("0")
    network = lab.network("front")
    web, store = lab.container("web", network), lab.container("store", network)
    store.serve(6379, "store")
    assert web.ask(store.address, 6379) == ("store", web.address)


def test_the_host_reaches_a_container_by_its_address(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    web.serve(80, "web")
    assert lab.host.ask(web.address, 80) == ("web", network.gateway)


def test_a_container_reaches_the_world_under_the_hosts_address(lab: Lab) -> None:
    network = lab.network("front")
    neighbour = lab.neighbour()
    neighbour.serve(80, "world")
    web = lab.container("web", network)
    assert web.ask(LAN_NEIGHBOUR, 80) == ("world", LAN_HOST)


def test_networks_do_not_reach_each_other(lab: Lab) -> None:
    front, back = lab.network("front"), lab.network("back")
    web, store = lab.container("web", front), lab.container("store", back)
    store.serve(80, "store")
    lab.host.serve(81, "host")
    assert web.cannot_reach(store.address, 80)
    assert web.cannot_reach(store.address, 80, protocol="udp")
    assert web.cannot_reach(back.gateway, 81)
    assert web.reaches(front.gateway, 81)


def test_a_container_on_two_networks_reaches_both(lab: Lab) -> None:
    front, back = lab.network("front"), lab.network("back")
    proxy = lab.container("proxy", front, back)
    web, store = lab.container("web", front), lab.container("store", back)
    web.serve(80, "web")
    store.serve(80, "store")
    assert proxy.ask(web.address, 80) == ("web", lab.endpoint("proxy", front).address)
    assert proxy.ask(store.address, 80) == ("store", lab.endpoint("proxy", back).address)


def test_an_internal_network_has_no_way_out(lab: Lab) -> None:
    inside, front = lab.network("inside", internal=True), lab.network("front")
    neighbour = lab.neighbour(inside.subnet)
    neighbour.serve(80, "world")
    lab.host.serve(80, "host")
    store, web = lab.container("store", inside), lab.container("web", front)
    web.serve(80, "web")
    store.serve(80, "store")
    assert store.run("ip", "route", "show", "default") == ""
    # Not even with a route of its own making.
    store.run("ip", "route", "add", "default", "via", inside.gateway)
    assert store.cannot_reach(LAN_NEIGHBOUR, 80)
    assert store.cannot_reach(LAN_HOST, 80)
    assert store.cannot_reach(web.address, 80)
    assert neighbour.cannot_reach(store.address, 80)
    assert web.cannot_reach(store.address, 80)
    other = lab.container("other", inside)
    assert other.reaches(store.address, 80)


@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
def test_containers_of_a_network_without_icc_do_not_reach_each_other(
    lab: Lab, bridge_netfilter: str
) -> None:
    lab.bridge_netfilter(bridge_netfilter)
    network = lab.network("front", options={"com.docker.network.bridge.enable_icc": "false"})
    neighbour = lab.neighbour()
    neighbour.serve(80, "world")
    web, store = lab.container("web", network), lab.container("store", network)
    store.serve(80, "store")
    assert web.cannot_reach(store.address, 80)
    assert web.reaches(LAN_NEIGHBOUR, 80)
    assert lab.host.reaches(store.address, 80)


def test_an_unpublished_port_is_not_reached_from_outside_by_a_route(lab: Lab) -> None:
    network = lab.network("front")
    neighbour = lab.neighbour(network.subnet)
    web = lab.container("web", network)
    web.serve(80, "web")
    assert neighbour.cannot_reach(web.address, 80)
    assert neighbour.cannot_reach(web.address, 80, protocol="udp")
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
    assert neighbour.cannot_reach(web.address, 80)
    assert neighbour.cannot_reach(network.gateway, 80)


def test_a_container_cannot_send_under_another_address(lab: Lab) -> None:
    front, back = lab.network("front"), lab.network("back")
    neighbour = lab.neighbour(front.subnet, back.subnet)
    neighbour.serve(80, "world")
    web, store = lab.container("web", front), lab.container("store", back)
    forged = "203.0.113.9"
    web.run("ip", "address", "add", f"{forged}/32", "dev", "eth0")
    web.run("ip", "route", "replace", "default", "via", front.gateway, "src", forged)
    before = _dropped(lab, "forged source")
    assert web.cannot_reach(LAN_NEIGHBOUR, 80)
    assert _dropped(lab, "forged source") > before
    assert store.reaches(LAN_NEIGHBOUR, 80)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
def test_a_published_port_is_reached_from_everywhere(
    lab: Lab, protocol: str, bridge_netfilter: str
) -> None:
    lab.bridge_netfilter(bridge_netfilter)
    front, back = lab.network("front"), lab.network("back")
    neighbour = lab.neighbour()
    web, beside = lab.container("web", front), lab.container("beside", front)
    elsewhere = lab.container("elsewhere", back)
    web.serve(80, "web")
    (port,) = lab.networks.publish(
        "web", [PublishedPort(container_port=80, host_port=8080, protocol=protocol)]
    )
    assert (port.host_ip, port.host_port) == ("0.0.0.0", 8080)
    for place, address, seen in (
        (lab.host, "127.0.0.1", front.gateway),
        (lab.host, "127.7.7.7", front.gateway),
        (lab.host, LAN_HOST, LAN_HOST),
        (lab.host, front.gateway, front.gateway),
        (neighbour, LAN_HOST, LAN_NEIGHBOUR),
        (beside, LAN_HOST, front.gateway),
        (beside, front.gateway, front.gateway),
        (elsewhere, LAN_HOST, front.gateway),
        (web, LAN_HOST, front.gateway),  # its own port, round by the host
    ):
        assert place.ask(address, 8080, protocol=protocol) == ("web", seen), (place.path, address)
    assert web.reaches("127.0.0.1", 80, protocol=protocol)
    assert neighbour.cannot_reach(LAN_HOST, 80, protocol=protocol)


def test_a_client_that_tries_ipv6_first_is_refused_there_at_once(lab: Lab) -> None:
    """Ports are on IPv4; who means localhost and tries ::1 is sent on, not kept waiting."""
    network = lab.network("front")
    lab.container("web", network).serve(80, "web")
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
    with socket.socket(socket.AF_INET6) as client:
        client.settimeout(3)
        with pytest.raises(ConnectionRefusedError):
            client.connect(("::1", 8080))
    assert lab.host.ask("127.0.0.1", 8080) is not None


def test_a_port_published_on_loopback_is_the_hosts_alone(lab: Lab) -> None:
    network = lab.network("front")
    neighbour = lab.neighbour(network.subnet)
    web, beside = lab.container("web", network), lab.container("beside", network)
    web.serve(80, "web")
    lab.networks.publish(
        "web", [PublishedPort(container_port=80, host_port=8080, host_ip="127.0.0.1")]
    )
    assert lab.host.ask("127.0.0.1", 8080) == ("web", network.gateway)
    assert lab.host.ask(LAN_HOST, 8080) is None
    assert neighbour.cannot_reach(LAN_HOST, 8080)
    assert beside.cannot_reach(network.gateway, 8080)
    # A machine on the same wire may send to 127.0.0.1 by the host's hardware address.
    for place, gateway, device in (
        (neighbour, LAN_HOST, "lan0"),
        (beside, network.gateway, "eth0"),
    ):
        place.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv4/conf/{device}/route_localnet")
        place.run("ip", "address", "delete", "127.0.0.1/8", "dev", "lo")
        place.run("ip", "route", "add", "127.0.0.1", "via", gateway, "src", place.address)
        assert place.cannot_reach("127.0.0.1", 8080)
    assert lab.host.ask("127.0.0.1", 8080) == ("web", network.gateway)


def test_a_container_does_not_reach_the_hosts_loopback(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    lab.host.serve(81, "secret", "127.0.0.1")
    web.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet")
    web.run("ip", "address", "delete", "127.0.0.1/8", "dev", "lo")
    web.run("ip", "route", "add", "127.0.0.1", "via", network.gateway, "src", web.address)
    before = _dropped(lab, "loopback from a network")
    assert web.cannot_reach("127.0.0.1", 81)
    assert _dropped(lab, "loopback from a network") > before


def test_a_port_published_on_one_address_is_on_no_other(lab: Lab) -> None:
    network = lab.network("front")
    neighbour = lab.neighbour()
    web = lab.container("web", network)
    web.serve(80, "web")
    lab.networks.publish(
        "web", [PublishedPort(container_port=80, host_port=8080, host_ip=LAN_HOST)]
    )
    assert neighbour.reaches(LAN_HOST, 8080)
    assert lab.host.reaches(LAN_HOST, 8080)
    assert lab.host.ask("127.0.0.1", 8080) is None


def test_an_unpublished_port_is_closed_again(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    web.serve(80, "web")
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
    assert lab.host.reaches("127.0.0.1", 8080)
    lab.networks.unpublish("web")
    assert lab.host.ask("127.0.0.1", 8080) is None


def test_a_udp_client_that_keeps_sending_follows_the_port(lab: Lab) -> None:
    """From one port of its own, before there is a server and across its replacement."""
    network = lab.network("front")
    neighbour = lab.neighbour()
    old, new = lab.container("old", network), lab.container("new", network)
    old.serve(53, "old")
    new.serve(53, "new")
    port = PublishedPort(container_port=53, host_port=5353, protocol="udp")
    with neighbour.socket(socket.SOCK_DGRAM) as client:
        client.connect((LAN_HOST, 5353))

        def ask() -> bytes:
            client.send(b"?")
            return client.recv(100)

        with pytest.raises(ConnectionRefusedError):
            ask()
        lab.networks.publish("old", [port])
        assert ask() == f"old {LAN_NEIGHBOUR}".encode()
        lab.networks.close_sandbox("old", release=True)
        lab.networks.publish("new", [port])
        assert ask() == f"new {LAN_NEIGHBOUR}".encode()


def test_no_ipv6_leads_round_the_rules(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    assert "inet6" not in web.run("ip", "address", "show", "eth0")
    assert "inet6" not in lab.host.run("ip", "address", "show", network.interface)
    accept = f"/proc/sys/net/ipv6/conf/{network.interface}/accept_ra"
    assert lab.host.run("cat", accept).strip() == "0"


def _dropped(lab: Lab, comment: str) -> int:
    """How many packets the rule with that comment has dropped."""
    for line in lab.host.run("nft", "list", "ruleset").splitlines():
        if f'comment "{comment}"' in line:
            return int(line.split("packets ")[1].split()[0])
    raise AssertionError(f"no rule {comment!r}")
