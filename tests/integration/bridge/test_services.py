"""Services: several sandboxes behind the same published ports."""

from __future__ import annotations

import socket

import pytest

from bridge.config import EndpointConfig, Network, PublishedPort
from bridge.errors import InvalidNetwork, PortInUse, RulesError, SandboxNotFound
from bridge.firewall import Firewall
from tests.integration.bridge.lab import LAN_HOST, Lab, Place

PORT = PublishedPort(container_port=80, host_port=8080)
SERVICE = "shop/web"


def replicas(lab: Lab, network: Network, count: int) -> list[Place]:
    places = [lab.container(f"web-{n}", network) for n in range(count)]
    for number, place in enumerate(places):
        place.serve(80, f"web-{number}")
    return places


def answers(place: Place, address: str, *, protocol: str = "tcp", count: int = 40) -> set[str]:
    """Who answers, of `count` connections that all are answered."""
    found = [place.ask(address, 8080, protocol=protocol) for _ in range(count)]
    assert None not in found
    return {answer[0] for answer in found if answer is not None}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_service_answers_with_all_its_replicas_from_everywhere(lab: Lab, protocol: str) -> None:
    network, other = lab.network("front"), lab.network("other")
    replicas(lab, network, 3)
    port = PublishedPort(container_port=80, host_port=8080, protocol=protocol)
    names = ("web-0", "web-1", "web-2")
    assert lab.networks.balance(SERVICE, [port], names)[0].host_port == 8080
    neighbour = lab.neighbour()
    elsewhere = lab.container("elsewhere", other)
    web = Place(lab, lab.networks.open_sandbox("web-0"))
    for place, address in (
        (lab.host, "127.0.0.1"),
        (lab.host, LAN_HOST),
        (neighbour, LAN_HOST),
        (elsewhere, LAN_HOST),
        (web, LAN_HOST),  # one of them asks, and may be answered by itself
    ):
        assert answers(place, address, protocol=protocol) == set(names), address


def test_a_service_is_switched_from_one_set_to_another(lab: Lab) -> None:
    network = lab.network("front")
    replicas(lab, network, 3)
    lab.networks.balance(SERVICE, [PORT], ["web-0"])
    assert answers(lab.host, "127.0.0.1", count=5) == {"web-0"}
    lab.networks.balance(SERVICE, [PORT], ["web-1", "web-2"])
    assert lab.networks.backends(SERVICE) == ("web-1", "web-2")
    assert answers(lab.host, "127.0.0.1") == {"web-1", "web-2"}
    lab.networks.balance(SERVICE, [PORT], [])
    assert lab.networks.backends(SERVICE) == ()
    assert lab.host.ask("127.0.0.1", 8080) is None
    lab.networks.balance(SERVICE, [PORT], ["web-0"])
    assert answers(lab.host, "127.0.0.1", count=5) == {"web-0"}


def test_replicas_share_a_port_and_services_do_not(lab: Lab) -> None:
    network = lab.network("front")
    replicas(lab, network, 2)
    lab.networks.balance(SERVICE, [PORT], ["web-0"])
    with pytest.raises(PortInUse, match="by service shop/web"):
        lab.networks.balance("shop/other", [PORT], ["web-1"])
    with pytest.raises(PortInUse, match="by service shop/web"):
        lab.networks.publish("web-1", [PORT])
    lab.networks.balance(SERVICE, [PORT], [])  # without backends it is kept all the same
    with pytest.raises(PortInUse):
        lab.networks.balance("shop/other", [PORT], ["web-1"])
    lab.networks.unpublish(SERVICE)
    lab.networks.balance("shop/other", [PORT], ["web-1"])
    assert lab.networks.port_owners() == ("shop/other",)


def test_a_port_that_was_chosen_stays_while_replicas_come_and_go(lab: Lab) -> None:
    network = lab.network("front")
    replicas(lab, network, 2)
    any_port = PublishedPort(container_port=80, host_ip="127.0.0.1")
    (chosen,) = lab.networks.balance(SERVICE, [any_port], ["web-0"])
    assert lab.networks.balance(SERVICE, [any_port], []) == (chosen,)
    assert lab.networks.balance(SERVICE, [any_port], ["web-1", "web-0"]) == (chosen,)
    assert lab.networks.published(SERVICE) == (chosen,)


def test_a_port_passes_from_a_sandbox_to_its_service(lab: Lab) -> None:
    network = lab.network("front")
    replicas(lab, network, 2)
    (alone,) = lab.networks.publish("web-0", [PublishedPort(container_port=80)])
    wanted = PublishedPort(container_port=80)
    assert lab.networks.balance(SERVICE, [wanted], ["web-0", "web-1"]) == (alone,)
    assert lab.networks.published("web-0") == ()
    assert lab.networks.port_owners() == (SERVICE,)


def test_a_replica_that_is_closed_gets_no_more_connections(lab: Lab) -> None:
    network = lab.network("front")
    replicas(lab, network, 2)
    lab.networks.balance(SERVICE, [PORT], ["web-0", "web-1"])
    lab.networks.close_sandbox("web-0", release=False)
    assert answers(lab.host, "127.0.0.1", count=10) == {"web-1"}
    lab.networks.unpublish("web-1")
    assert lab.networks.published(SERVICE) == (
        PublishedPort(container_port=80, host_ip="0.0.0.0", host_port=8080),
    )
    assert lab.host.ask("127.0.0.1", 8080) is None


def test_a_replica_that_changes_networks_is_followed(lab: Lab) -> None:
    front, back = lab.network("front"), lab.network("back")
    web = lab.container("web-0", front)
    web.serve(80, "web-0")
    lab.networks.balance(SERVICE, [PORT], ["web-0"])
    lab.networks.connect("web-0", EndpointConfig(network_id=back.id))
    lab.networks.disconnect("web-0", front.id)
    assert answers(lab.host, "127.0.0.1", count=5) == {"web-0"}


def test_a_udp_client_stays_with_its_replica_while_that_is_there(lab: Lab) -> None:
    network = lab.network("front")
    neighbour = lab.neighbour()
    replicas(lab, network, 4)
    port = PublishedPort(container_port=80, host_port=8080, protocol="udp")
    lab.networks.balance(SERVICE, [port], ["web-0"])

    with neighbour.socket(socket.SOCK_DGRAM) as client:
        client.connect((LAN_HOST, 8080))

        def answered_by() -> str:
            client.send(b"?")
            return client.recv(100).decode().split()[0]

        for backends in (["web-0"], ["web-0", "web-1", "web-2", "web-3"], ["web-3", "web-0"]):
            lab.networks.balance(SERVICE, [port], backends)
            assert {answered_by() for _ in range(3)} == {"web-0"}
        lab.networks.balance(SERVICE, [port], ["web-3"])
        assert answered_by() == "web-3"


def test_a_set_that_cannot_be_changes_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    network, shut = lab.network("front"), lab.network("shut", internal=True)
    replicas(lab, network, 2)
    lab.container("inside", shut)
    lab.networks.balance(SERVICE, [PORT], ["web-0"])
    with pytest.raises(SandboxNotFound):
        lab.networks.balance(SERVICE, [PORT], ["web-1", "nobody"])
    with pytest.raises(InvalidNetwork, match="no network that leads out"):
        lab.networks.balance(SERVICE, [PORT], ["web-1", "inside"])
    with pytest.raises(InvalidNetwork, match="project/service"):
        lab.networks.balance("web", [PORT], ["web-1"])

    def fail(*_: object) -> None:
        raise RulesError("no rules today")

    with monkeypatch.context() as patched:
        patched.setattr(Firewall, "apply", fail)
        with pytest.raises(RulesError):
            lab.networks.balance(SERVICE, [PORT], ["web-1"])
    assert lab.networks.backends(SERVICE) == ("web-0",)
    assert answers(lab.host, "127.0.0.1", count=5) == {"web-0"}


def test_a_service_comes_back_after_a_crash(lab: Lab) -> None:
    network = lab.network("front")
    replicas(lab, network, 2)
    ports = lab.networks.balance(SERVICE, [PORT], ["web-0", "web-1"])
    lab.host.run("nft", "flush", "ruleset")
    again = lab.open()
    assert again.sweep() != ()
    assert again.sweep() == ()
    assert again.balance(SERVICE, [PORT], ["web-0", "web-1"]) == ports
    assert again.ensure(network.id) == ()
    assert answers(lab.host, "127.0.0.1") == {"web-0", "web-1"}
