"""The rules in the kernel: ports that move between backends while connections go on."""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import pytest

from bridge.config import Network
from bridge.errors import RulesError
from bridge.firewall import Firewall
from bridge.ruleset import Backend, NetworkRules, PortRules, Ruleset
from runtime.linux.nftables import Nftables, RulesRefused
from tests.integration.bridge.lab import LAN_HOST, Lab, Place

PORT = PortRules(host_ip="", host_port=8080, protocol="tcp", backends=())


def ruleset(network: Network, *backends: Place) -> Ruleset:
    rules = NetworkRules(
        interface=network.interface, subnet=network.subnet, gateway=network.gateway
    )
    targets = tuple(Backend(address=backend.address, port=80) for backend in backends)
    return Ruleset(networks=(rules,), ports=(replace(PORT, backends=targets),))


def firewall(lab: Lab) -> Firewall:
    (table,) = lab.tables()
    return Firewall(table)


def test_connections_spread_over_all_backends(lab: Lab) -> None:
    network = lab.network("front")
    places = [lab.container(f"web-{n}", network) for n in range(3)]
    for number, place in enumerate(places):
        place.serve(80, f"web-{number}")
    rules = firewall(lab)
    rules.apply(ruleset(network, *places))
    answers = [lab.host.ask("127.0.0.1", 8080) for _ in range(60)]
    rules.close()
    assert {answer[0] for answer in answers if answer} == {"web-0", "web-1", "web-2"}
    assert None not in answers


def test_a_switch_of_backends_refuses_nobody_and_keeps_what_is_connected(lab: Lab) -> None:
    network = lab.network("front")
    neighbour = lab.neighbour()
    blue, green = lab.container("blue", network), lab.container("green", network)
    green.serve(80, "green")
    server = blue.socket(socket.SOCK_STREAM)
    server.bind(("0.0.0.0", 80))
    server.listen()
    rules = firewall(lab)
    rules.apply(ruleset(network, blue))
    with neighbour.socket(socket.SOCK_STREAM) as client:
        client.connect((LAN_HOST, 8080))
        connection, _peer = server.accept()
        with connection:
            connection.settimeout(3)
            rules.apply(ruleset(network, green))
            assert neighbour.ask(LAN_HOST, 8080) == ("green", "198.51.100.2")
            client.sendall(b"still here")
            assert connection.recv(100) == b"still here"
            connection.sendall(b"so am I")
            assert client.recv(100) == b"so am I"
    rules.close()


def test_step_by_step_leads_to_the_same_rules_as_all_at_once(lab: Lab) -> None:
    network = lab.network("front")
    places = [lab.container(f"web-{n}", network) for n in range(3)]
    step_by_step, at_once = Firewall("steps"), Firewall("once")
    for count in (0, 1, 3, 2):
        step_by_step.apply(ruleset(network, *places[:count]))
    at_once.apply(ruleset(network, *places[:2]))
    step_by_step.close()
    at_once.close()

    def rules(table: str) -> list[str]:
        text = lab.host.run("nft", "-s", "list", "table", "ip", table)
        return sorted(text.replace(table, "").splitlines())

    assert rules("steps") == rules("once")


def test_a_refused_text_changes_nothing_and_says_why(lab: Lab) -> None:
    before = lab.host.run("nft", "list", "ruleset")
    with Nftables() as nftables:
        with pytest.raises(RulesRefused, match="No such file"):
            nftables.run("add table ip one\nadd rule ip two three accept")
        with pytest.raises(RulesRefused, match="syntax error"):
            nftables.run("add nonsense")
    assert lab.host.run("nft", "list", "ruleset") == before


def test_every_transaction_has_a_number(lab: Lab) -> None:
    with Nftables() as nftables:
        first = nftables.generation()
        assert nftables.generation() == first
        lab.host.run("nft", "add", "table", "ip", "other")
        assert nftables.generation() == first + 1


def test_rules_that_the_kernel_refuses_are_reported(lab: Lab) -> None:
    network = lab.network("front")
    bad = replace(ruleset(network), networks=(replace(ruleset(network).networks[0], subnet="x"),))
    rules = Firewall("bad")
    with pytest.raises(RulesError, match="table bad"):
        rules.apply(bad)
    rules.close()
    tables = json.loads(lab.host.run("nft", "-j", "list", "tables"))["nftables"]
    assert "bad" not in json.dumps(tables)
