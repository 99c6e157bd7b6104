"""The rules as text: what changes, and what does not."""

from __future__ import annotations

from dataclasses import replace

from bridge.ruleset import (
    EMPTY,
    Backend,
    NetworkRules,
    PortRules,
    Ruleset,
    difference,
    install,
    remove,
    udp_ports_moved,
)

FRONT = NetworkRules(interface="bp-front", subnet="10.9.0.0/24", gateway="10.9.0.1")
INSIDE = NetworkRules(
    interface="bp-inside",
    subnet="10.9.1.0/24",
    gateway="10.9.1.1",
    internal=True,
    masquerade=False,
    resolver_port=4053,
)


def port(*backends: str, host_ip: str = "", host_port: int = 8080) -> PortRules:
    return PortRules(
        host_ip=host_ip,
        host_port=host_port,
        protocol="tcp",
        backends=tuple(Backend(address=address, port=80) for address in backends),
    )


def changes(old: Ruleset, new: Ruleset) -> list[str]:
    return difference("t", old, new).splitlines()


def test_equal_rules_need_no_change() -> None:
    ruleset = Ruleset(networks=(FRONT, INSIDE), ports=(port("10.9.0.2"),))
    assert changes(ruleset, ruleset) == []


def test_a_network_is_elements_only() -> None:
    assert changes(EMPTY, Ruleset(networks=(FRONT,))) == [
        'add element ip t bridges { "bp-front" }',
        'add element ip t same-bridge { "bp-front" . "bp-front" }',
        "add element ip t subnets { 10.9.0.0/24 }",
        'add element ip t members { "bp-front" . 10.9.0.0/24 }',
        "add element ip t masqueraded { 10.9.0.0/24 }",
    ]


def test_an_internal_network_is_marked_so_and_never_masqueraded() -> None:
    text = "\n".join(changes(EMPTY, Ruleset(networks=(INSIDE,))))
    assert 'add element ip t internal { "bp-inside" }' in text
    assert "add element ip t resolvers { 10.9.1.1 : 4053 }" in text
    assert "masqueraded" not in text


def test_a_port_gets_its_chain_before_anything_leads_there() -> None:
    assert changes(EMPTY, Ruleset(ports=(port("10.9.0.2"),))) == [
        "add chain ip t to-tcp-8080",
        "add rule ip t to-tcp-8080 meta l4proto tcp dnat ip to 10.9.0.2:80",
        "add element ip t published-any { tcp . 8080 : goto to-tcp-8080 }",
    ]


def test_a_port_on_one_address_has_a_map_of_its_own() -> None:
    assert changes(EMPTY, Ruleset(ports=(port("10.9.0.2", host_ip="127.0.0.1"),)))[-1] == (
        "add element ip t published { 127.0.0.1 . tcp . 8080 : goto to-tcp-8080-127.0.0.1 }"
    )


def test_a_port_moves_to_other_backends_without_leaving_the_map() -> None:
    assert changes(
        Ruleset(ports=(port("10.9.0.2"),)), Ruleset(ports=(port("10.9.0.3", "10.9.0.4"),))
    ) == [
        "flush chain ip t to-tcp-8080",
        "add rule ip t to-tcp-8080 meta l4proto tcp numgen random mod 2 0 dnat ip to 10.9.0.3:80",
        "add rule ip t to-tcp-8080 meta l4proto tcp dnat ip to 10.9.0.4:80",
    ]


def test_a_port_goes_from_the_map_before_its_chain_does() -> None:
    assert changes(Ruleset(ports=(port("10.9.0.2"),)), EMPTY) == [
        "delete element ip t published-any { tcp . 8080 }",
        "delete chain ip t to-tcp-8080",
    ]


def test_a_port_without_backends_is_closed() -> None:
    assert changes(EMPTY, Ruleset(ports=(port(),))) == []


def test_a_resolver_that_moves_replaces_its_element() -> None:
    old = NetworkRules(interface="b", subnet="10.9.0.0/24", gateway="10.9.0.1", resolver_port=4053)
    new = NetworkRules(interface="b", subnet="10.9.0.0/24", gateway="10.9.0.1", resolver_port=4054)
    assert changes(Ruleset(networks=(old,)), Ruleset(networks=(new,))) == [
        "delete element ip t resolvers { 10.9.0.1 }",
        "add element ip t resolvers { 10.9.0.1 : 4054 }",
    ]


def test_a_whole_installation_replaces_the_table_in_one_text() -> None:
    text = install("t", Ruleset(networks=(FRONT,)))
    assert text.startswith("table ip t\ndelete table ip t\ntable ip t {\n")
    assert text.endswith(difference("t", EMPTY, Ruleset(networks=(FRONT,))))
    assert remove("t") == "table ip t\ndelete table ip t\n"


def test_only_udp_ports_that_changed_have_moved() -> None:
    udp = replace(port("10.9.0.2"), protocol="udp")
    more = replace(port("10.9.0.2", "10.9.0.3"), protocol="udp")
    assert udp_ports_moved(None, Ruleset(ports=(udp,))) == {}
    assert udp_ports_moved(Ruleset(ports=(udp,)), Ruleset(ports=(udp,))) == {}
    assert udp_ports_moved(EMPTY, Ruleset(ports=(port("10.9.0.2"),))) == {}
    assert udp_ports_moved(EMPTY, Ruleset(ports=(udp,))) == {8080: frozenset(udp.backends)}
    assert udp_ports_moved(Ruleset(ports=(udp,)), Ruleset(ports=(more,))) == {
        8080: frozenset(more.backends)
    }
    assert udp_ports_moved(Ruleset(ports=(udp,)), EMPTY) == {8080: frozenset()}
