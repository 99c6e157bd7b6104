"""What the resolver answers, read back by another implementation of DNS."""

from __future__ import annotations

import random

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSQuestion, DNSRecord
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import dns_messages as dns
from bridge.config import Endpoint, Network
from bridge.dns_forward import nameservers
from bridge.dns_names import Names, Zone, members_by_network, names_by_network

FRONT = Network(id="f", name="shop_front", subnet="10.9.0.0/24", gateway="10.9.0.1", interface="a")
BACK = Network(id="b", name="shop_back", subnet="10.9.1.0/24", gateway="10.9.1.1", interface="b")


def names() -> Names:
    made = Names(ttl=1, rng=random.Random(7))
    made.set_zone(
        Zone(
            network=FRONT,
            names={
                "web": ("10.9.0.2", "10.9.0.3"),
                "shop-web-1": ("10.9.0.2",),
                "shop-web-2": ("10.9.0.3",),
                "empty": (),
                "many": tuple(f"10.9.0.{n}" for n in range(2, 250)),
            },
            members={"10.9.0.2": "web-1", "10.9.0.3": "web-2"},
        )
    )
    made.set_zone(Zone(network=BACK, names={"store": ("10.9.1.9",)}, members={"10.9.1.2": "web-1"}))
    return made


def query(name: str, kind: str = "A", *, edns: int | None = None) -> dns.Query:
    record = DNSRecord(q=DNSQuestion(name, getattr(QTYPE, kind)))
    record.header.rd = 1
    if edns is not None:
        record.add_ar(EDNS0(udp_len=edns))
    parsed = dns.parse_query(record.pack())
    assert parsed is not None
    return parsed


def resolve(
    name: str, kind: str = "A", *, asker: str = "10.9.0.3", edns: int | None = None
) -> DNSRecord | None:
    question = query(name, kind, edns=edns)
    zones = names().zones_of("f", asker)
    answer = names().resolve(question, zones, limit=question.udp_size)
    return None if answer is None else DNSRecord.parse(answer)


def addresses(record: DNSRecord | None) -> list[str]:
    assert record is not None
    return [str(answer.rdata) for answer in record.rr]


def test_a_name_has_all_its_addresses() -> None:
    record = resolve("web")
    assert record is not None
    assert sorted(addresses(record)) == ["10.9.0.2", "10.9.0.3"]
    assert [str(answer.rname) for answer in record.rr] == ["web.", "web."]
    assert {answer.ttl for answer in record.rr} == {1}
    assert (record.header.qr, record.header.ra, record.header.rd) == (1, 1, 1)
    assert record.header.rcode == RCODE.NOERROR


def test_case_does_not_matter_and_the_question_comes_back_as_it_was() -> None:
    record = resolve("WeB")
    assert len(addresses(record)) == 2
    assert record is not None
    assert str(record.q.qname) == "WeB."


def test_a_name_is_known_with_its_networks_name_too() -> None:
    assert addresses(resolve("shop-web-1.shop_front")) == ["10.9.0.2"]
    assert resolve("shop-web-1.shop_back") is None


def test_several_addresses_come_in_any_order() -> None:
    made, question = names(), query("web")
    zones = made.zones_of("f", "10.9.0.3")
    firsts = {
        addresses(DNSRecord.parse(made.resolve(question, zones, limit=512) or b""))[0]
        for _ in range(50)
    }
    assert firsts == {"10.9.0.2", "10.9.0.3"}


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "SRV"])
def test_a_known_name_has_nothing_of_another_type(kind: str) -> None:
    record = resolve("web", kind)
    assert addresses(record) == []
    assert record is not None
    assert record.header.rcode == RCODE.NOERROR


def test_a_name_without_addresses_is_known_all_the_same() -> None:
    assert addresses(resolve("empty")) == []


def test_an_address_has_its_most_special_name() -> None:
    record = resolve("2.0.9.10.in-addr.arpa", "PTR")
    assert addresses(record) == ["shop-web-1.shop_front."]


def test_an_unknown_address_of_ours_is_nobodys_business_outside() -> None:
    record = resolve("251.0.9.10.in-addr.arpa", "PTR")
    assert record is not None
    assert record.header.rcode == RCODE.NXDOMAIN
    assert resolve("1.1.1.1.in-addr.arpa", "PTR") is None


def test_other_names_are_not_known() -> None:
    assert resolve("example.com") is None
    assert resolve("web.example.com") is None


def test_an_asker_on_two_networks_gets_the_names_of_both() -> None:
    assert addresses(resolve("store", asker="10.9.0.2")) == ["10.9.1.9"]
    assert resolve("store", asker="10.9.0.3") is None
    assert resolve("store", asker="10.9.0.77") is None


def test_too_many_addresses_are_cut_and_marked() -> None:
    record = resolve("many")
    assert record is not None
    assert record.header.tc == 1
    assert 20 < len(record.rr) < 32
    larger = resolve("many", edns=1232)
    assert larger is not None
    assert larger.header.tc == 1
    assert len(larger.rr) > 60
    assert larger.ar[0].rtype == QTYPE.OPT


def test_by_tcp_all_addresses_come() -> None:
    made, question = names(), query("many")
    answer = made.resolve(question, made.zones_of("f", "x"), limit=None)
    assert answer is not None
    assert len(DNSRecord.parse(answer).rr) == 248


def test_what_does_not_fit_is_only_marked() -> None:
    question = query("example.com")
    response = dns.answer(question, [f"10.9.0.{n}" for n in range(100)], 1)
    record = DNSRecord.parse(dns.fit(response, question))
    assert (record.header.tc, record.rr, str(record.q.qname)) == (1, [], "example.com.")


def test_answers_of_others_are_told_apart() -> None:
    question = query("example.com")
    response = dns.answer(question, ["192.0.2.1"], 1)
    assert dns.answers_to(dns.with_id(response, 77), question, 77)
    assert not dns.answers_to(dns.with_id(response, 78), question, 77)
    assert not dns.answers_to(dns.with_id(dns.answer(query("evil.com"), [], 1), 77), question, 77)
    assert not dns.answers_to(b"", question, 77)


WEB = DNSRecord.question("web").pack()


@given(st.binary(max_size=80))
@example(b"")
@example(WEB[:-1])
@example(WEB[:2] + b"\x80" + WEB[3:])  # an answer
@example(WEB[:4] + b"\0\0" + WEB[6:])  # no question
@example(WEB[:4] + b"\0\2" + WEB[6:])  # two of them
@example(WEB[:12] + b"\xc0\x0c" + WEB[17:])  # a name that points at itself
@example(WEB[:12] + b"\x3f" + WEB[13:])  # a label past the end
@example(WEB[:12] + b"\x01a" * 200 + b"\0\0\1\0\1")  # a name without end
def test_nonsense_is_no_question_and_no_fault(message: bytes) -> None:
    parsed = dns.parse_query(message)
    if parsed is not None:
        assert dns.no_answer(parsed, dns.NXDOMAIN)[:2] == message[:2]


@given(st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,4}", fullmatch=True))
def test_names_are_read_as_another_implementation_writes_them(name: str) -> None:
    assert query(name).name == name


def test_name_servers_are_read_from_resolv_conf() -> None:
    text = (
        "# a comment\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver nonsense\n"
        "nameserver\nsearch example.com\nnameserver 192.0.2.1 # why\nnameserver 192.0.2.2\n"
    )
    assert nameservers(text) == ("127.0.0.53", "fe80::1%eth0", "192.0.2.1")
    assert nameservers("") == ()


def test_names_and_members_come_from_endpoints() -> None:
    endpoints = [
        Endpoint(
            sandbox_id=f"web-{n}",
            network_id="f",
            address=f"10.9.0.{n}",
            prefix=24,
            gateway="10.9.0.1",
            mac="",
            interface="eth0",
            link="",
            aliases=("web", f"shop-web-{n}"),
        )
        for n in (2, 3)
    ]
    assert names_by_network(endpoints) == {
        "f": {
            "web": ("10.9.0.2", "10.9.0.3"),
            "shop-web-2": ("10.9.0.2",),
            "shop-web-3": ("10.9.0.3",),
        }
    }
    assert members_by_network(endpoints) == {"f": {"10.9.0.2": "web-2", "10.9.0.3": "web-3"}}


def test_a_name_of_the_asker_s_own_goes_before_those_of_its_networks() -> None:
    question = query("web")
    zones = names().zones_of("f", "10.9.0.3")
    answer = names().resolve(question, zones, own={"web": ("10.9.1.9",)}, limit=None)
    assert answer is not None
    assert addresses(DNSRecord.parse(answer)) == ["10.9.1.9"]
