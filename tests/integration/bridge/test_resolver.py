"""Containers ask for names over the network."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from bridge.dns import Resolver
from bridge.dns_names import members_by_network, names_by_network
from tests.integration.bridge.lab import Lab, Place, eventually

T = TypeVar("T")

OUTSIDE = "192.0.2.80"


class Names:
    """A resolver in a loop of its own, wired to the lab's networks as the daemon does it."""

    def __init__(self, lab: Lab, resolv_conf: Path, **settings: Any) -> None:
        self._lab = lab
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.resolver = self.call(self._make(resolv_conf, settings))

    async def _make(self, resolv_conf: Path, settings: dict[str, Any]) -> Resolver:
        resolver = Resolver(resolv_conf=resolv_conf, **settings)
        for network in self._lab.networks.list():
            await resolver.serve(network)
        return resolver

    def call(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(timeout=20)

    def publish(self) -> None:
        for network_id, port in self.resolver.ports.items():
            self._lab.networks.set_resolver_port(network_id, port)
        endpoints = self._lab.networks.endpoints()
        members = members_by_network(endpoints)

        async def set_names() -> None:
            for network_id, names in names_by_network(endpoints).items():
                self.resolver.set_names(network_id, names, members[network_id])

        self.call(set_names())

    def close(self) -> None:
        self.call(self.resolver.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextlib.contextmanager
def names(lab: Lab, **settings: Any) -> Iterator[Names]:
    resolv_conf = lab.root / "resolv.conf"
    if not resolv_conf.exists():
        resolv_conf.write_text("nameserver 127.0.0.1\n")
    made = Names(lab, resolv_conf, **settings)
    try:
        made.publish()
        yield made
    finally:
        made.close()


def upstream(
    lab: Lab,
    address: str = "127.0.0.1",
    *,
    answer: Callable[[DNSRecord], bytes | None] | None = None,
) -> list[str]:
    """A name server that knows every name, by UDP and TCP; the names that it was asked."""
    asked: list[str] = []

    def respond(message: bytes) -> bytes | None:
        query = DNSRecord.parse(message)
        asked.append(str(query.q.qname).rstrip("."))
        if answer is not None:
            return answer(query)
        reply = query.reply()
        reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(OUTSIDE), ttl=60))
        packed: bytes = reply.pack()
        return packed

    udp = lab.host.socket(socket.SOCK_DGRAM)
    udp.bind((address, 53))
    tcp = lab.host.socket(socket.SOCK_STREAM)
    tcp.bind((address, 53))
    tcp.listen()
    udp.settimeout(0.1)
    tcp.settimeout(0.1)

    def receive() -> None:
        with contextlib.suppress(TimeoutError):
            message, peer = udp.recvfrom(4096)
            response = respond(message)
            if response is not None:
                udp.sendto(response, peer)

    def accept() -> None:
        with contextlib.suppress(TimeoutError):
            connection, _peer = tcp.accept()
            with connection:
                connection.settimeout(3)
                (length,) = struct.unpack("!H", connection.recv(2))
                response = respond(connection.recv(length))
                if response is not None:
                    connection.sendall(struct.pack("!H", len(response)) + response)

    lab.repeat(receive)
    lab.repeat(accept)
    return asked


def lookup(
    place: Place, server: str, name: str, kind: str = "A", *, tcp: bool = False, port: int = 53
) -> DNSRecord:
    question = DNSRecord.question(name, kind).pack()
    with place.socket(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as client:
        client.settimeout(8)
        client.connect((server, port))
        if tcp:
            client.sendall(struct.pack("!H", len(question)) + question)
            (length,) = struct.unpack("!H", client.recv(2))
            response = b""
            while len(response) < length:
                response += client.recv(length - len(response))
        else:
            client.send(question)
            response = client.recv(4096)
    return DNSRecord.parse(response)


def addresses(record: DNSRecord) -> list[str]:
    return sorted(str(answer.rdata) for answer in record.rr)


def test_a_container_reaches_another_by_name(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    store = lab.container("store", network, aliases=("store", "shop-store-1"))
    store.serve(6379, "store")
    with names(lab):
        # An ordinary client: busybox.
        said = web.run("busybox", "nslookup", "store", network.gateway)
        assert f"Address: {store.address}" in said.replace("Address 1:", "Address:")
        (address,) = addresses(lookup(web, network.gateway, "STORE"))
        assert web.ask(address, 6379) == ("store", web.address)
        assert addresses(lookup(web, network.gateway, "store", tcp=True)) == [store.address]


def test_names_are_of_the_networks_that_a_container_is_on(lab: Lab) -> None:
    front, back = lab.network("front"), lab.network("back", internal=True)
    proxy = lab.container("proxy", front, back, aliases=("proxy",))
    web = lab.container("web", front, aliases=("web",))
    store = lab.container("store", back, aliases=("store",))
    upstream(lab, answer=lambda query: None)
    with names(lab, upstream_timeout=0.2):
        for server in (front.gateway, back.gateway):
            assert addresses(lookup(proxy, server, "web")) == [web.address]
            assert addresses(lookup(proxy, server, "store")) == [store.address]
        assert addresses(lookup(web, front.gateway, "store")) == []
        assert addresses(lookup(store, back.gateway, "web")) == []


def test_other_names_come_from_the_hosts_name_server(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    asked = upstream(lab)
    with names(lab):
        for tcp in (False, True):
            record = lookup(web, network.gateway, "example.com", tcp=tcp)
            assert addresses(record) == [OUTSIDE]
    assert asked == ["example.com", "example.com"]


def test_an_internal_network_never_asks_outside(lab: Lab) -> None:
    inside = lab.network("inside", internal=True)
    store = lab.container("store", inside, aliases=("store",))
    asked = upstream(lab)
    with names(lab):
        for tcp in (False, True):
            record = lookup(store, inside.gateway, "secret.example.com", tcp=tcp)
            assert record.header.rcode == RCODE.NXDOMAIN
        assert addresses(lookup(store, inside.gateway, "store")) == [store.address]
    assert asked == []


def test_the_host_gets_names_but_cannot_send_us_in_a_circle(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network, aliases=("web",))
    asked = upstream(lab)
    with names(lab) as served:
        port = served.resolver.ports[network.id]
        assert addresses(lookup(lab.host, network.gateway, "web", port=port)) == [web.address]
        record = lookup(lab.host, network.gateway, "example.com", port=port)
        assert record.header.rcode == RCODE.REFUSED
        (lab.root / "resolv.conf").write_text(f"nameserver {network.gateway}\n")
        record = lookup(web, network.gateway, "example.com")
        assert record.header.rcode == RCODE.REFUSED
    assert asked == []


def test_a_silent_name_server_is_passed_over(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    upstream(lab, "127.0.0.1", answer=lambda query: None)
    upstream(lab, "127.0.0.3")
    lab.root.joinpath("resolv.conf").write_text(
        "nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n"
    )
    with names(lab, upstream_timeout=0.2):
        assert addresses(lookup(web, network.gateway, "example.com")) == [OUTSIDE]


def test_a_name_server_that_fails_is_passed_over_and_without_any_it_is_said(lab: Lab) -> None:
    def fail(query: DNSRecord) -> bytes:
        reply = query.reply()
        reply.header.rcode = RCODE.SERVFAIL
        packed: bytes = reply.pack()
        return packed

    network = lab.network("front")
    web = lab.container("web", network)
    upstream(lab, "127.0.0.1", answer=fail)
    upstream(lab, "127.0.0.2")
    lab.root.joinpath("resolv.conf").write_text("nameserver 127.0.0.1\nnameserver 127.0.0.2\n")
    with names(lab):
        assert addresses(lookup(web, network.gateway, "example.com")) == [OUTSIDE]
        for text in ("nameserver 127.0.0.1\n", "nameserver 127.0.0.9\n", ""):
            lab.root.joinpath("resolv.conf").write_text(text)
            record = lookup(web, network.gateway, "example.com")
            assert record.header.rcode == RCODE.SERVFAIL


def test_the_hosts_name_servers_are_read_again_when_they_change(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    first, second = upstream(lab, "127.0.0.1"), upstream(lab, "127.0.0.2")
    with names(lab):
        lookup(web, network.gateway, "one.example.com")
        lab.root.joinpath("resolv.conf").write_text("nameserver 127.0.0.2\n# new\n")
        lookup(web, network.gateway, "two.example.com")
    assert (first, second) == (["one.example.com"], ["two.example.com"])


def test_a_container_may_have_name_servers_of_its_own(lab: Lab) -> None:
    network = lab.network("front")
    web, other = lab.container("web", network, aliases=("web",)), lab.container("other", network)
    hosts, own = upstream(lab, "127.0.0.1"), upstream(lab, "127.0.0.2")
    with names(lab) as served:
        served.resolver.set_upstreams({"web": ["127.0.0.2"]})
        for tcp in (False, True):
            lookup(web, network.gateway, "one.example.com", tcp=tcp)
        lookup(other, network.gateway, "two.example.com")
        assert addresses(lookup(web, network.gateway, "web")) == [web.address]
    assert (own, hosts) == (["one.example.com"] * 2, ["two.example.com"])


def test_name_servers_of_its_own_take_the_place_of_the_hosts_for_as_long_as_they_are_set(
    lab: Lab,
) -> None:
    network, shut = lab.network("front"), lab.network("shut", internal=True)
    web, inside = lab.container("web", network), lab.container("inside", shut)
    hosts, own = upstream(lab, "127.0.0.1"), upstream(lab, "127.0.0.2")
    with names(lab, upstream_timeout=0.2) as served:
        served.resolver.set_upstreams({"web": ["127.0.0.9"], "inside": ["127.0.0.2"]})
        # Who is silent is not stood in for by somebody whom nobody chose.
        assert lookup(web, network.gateway, "one.example.com").header.rcode == RCODE.SERVFAIL
        assert lookup(inside, shut.gateway, "two.example.com").header.rcode == RCODE.NXDOMAIN
        served.resolver.set_upstreams({"web": ["127.0.0.9", "127.0.0.2"]})
        assert addresses(lookup(web, network.gateway, "three.example.com")) == [OUTSIDE]
        served.resolver.set_upstreams({})
        assert addresses(lookup(web, network.gateway, "four.example.com")) == [OUTSIDE]
    assert (own, hosts) == (["three.example.com"], ["four.example.com"])


def test_names_change_at_one_stroke_while_they_are_asked_for(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    blue, green = ("10.0.0.1", "10.0.0.2"), ("10.0.0.3", "10.0.0.4")
    with names(lab) as served:
        enough = threading.Event()

        async def switch() -> None:
            for turn in itertools.count():
                if enough.is_set():
                    return
                shop = (blue, green)[turn % 2]
                served.resolver.set_names(network.id, {"shop": shop, f"other-{turn}": shop})
                await asyncio.sleep(0.001)

        served.resolver.set_names(network.id, {"shop": blue})
        switching = asyncio.run_coroutine_threadsafe(switch(), served._loop)
        seen: Counter[tuple[str, ...]] = Counter()
        try:
            # Until each was seen: how many are asked for in a time is the machine's affair.
            while seen.total() < 100 or not (seen[blue] and seen[green]):
                record = lookup(web, network.gateway, "shop")
                assert {answer.ttl for answer in record.rr} == {1}
                seen[tuple(addresses(record))] += 1
                assert set(seen) <= {blue, green}
        finally:
            enough.set()
            switching.result()
        served.resolver.set_names(network.id, {"shop": ()})
        none_ready = lookup(web, network.gateway, "shop")
        assert (none_ready.header.rcode, none_ready.rr) == (RCODE.NOERROR, [])


def test_a_large_answer_comes_by_tcp(lab: Lab) -> None:
    def many(query: DNSRecord) -> bytes:
        reply = query.reply()
        for number in range(100):
            reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(f"192.0.2.{number}"), ttl=1))
        packed: bytes = reply.pack()
        return packed

    network = lab.network("front")
    web = lab.container("web", network)
    upstream(lab, answer=many)
    with names(lab):
        record = lookup(web, network.gateway, "example.com")
        assert (record.header.tc, record.rr) == (1, [])
        assert len(lookup(web, network.gateway, "example.com", tcp=True).rr) == 100


def test_whoever_sends_nonsense_or_nothing_keeps_nobody_else_waiting(lab: Lab) -> None:
    network = lab.network("front")
    rude = lab.container("rude", network)
    web = lab.container("web", network, aliases=("web",))
    question = DNSRecord.question("web").pack()
    with names(lab):
        for beginning in (b"", b"\xff", b"\xff\xff", struct.pack("!H", 500) + question):
            connection = rude.socket(socket.SOCK_STREAM)
            connection.connect((network.gateway, 53))
            connection.sendall(beginning)
        flood = [rude.socket(socket.SOCK_STREAM) for _ in range(40)]
        for connection in flood:
            connection.connect((network.gateway, 53))
        with rude.socket(socket.SOCK_DGRAM) as garbage:
            garbage.connect((network.gateway, 53))
            for message in (b"", b"x", question[:15], b"\xff" * 600, question[:12] + b"\xc0\x0c"):
                garbage.send(message)
        for tcp in (False, True):
            assert addresses(lookup(web, network.gateway, "web", tcp=tcp)) == [web.address]


def test_a_program_on_the_hosts_port_53_is_not_in_the_way(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network, aliases=("web",))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 53))
        with names(lab):
            assert addresses(lookup(web, network.gateway, "web")) == [web.address]


def test_the_resolver_is_not_reached_from_outside(lab: Lab) -> None:
    network = lab.network("front")
    neighbour = lab.neighbour(network.subnet)
    with names(lab) as served:
        port = served.resolver.ports[network.id]
        assert neighbour.cannot_reach(network.gateway, port)
        assert neighbour.cannot_reach("198.51.100.1", port)


def test_a_new_resolver_takes_over_on_the_same_port(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network, aliases=("web",))
    with names(lab) as served:
        before = served.resolver.ports
    with names(lab) as served:
        assert served.resolver.ports == before
        assert addresses(lookup(web, network.gateway, "web")) == [web.address]


def test_a_network_that_is_forgotten_is_no_longer_served(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    with names(lab) as served:
        port = served.resolver.ports[network.id]

        async def forget() -> None:
            served.resolver.forget(network.id)

        served.call(forget())
        eventually(lambda: web.cannot_reach(network.gateway, port), "the port is closed")
        assert served.resolver.ports == {}


def test_all_questions_of_a_crowd_are_answered(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    upstream(lab)
    with names(lab):
        clients = [web.socket(socket.SOCK_DGRAM) for _ in range(200)]
        for number, client in enumerate(clients):
            client.connect((network.gateway, 53))
            client.send(DNSRecord.question(f"host-{number}.example.com").pack())
        for number, client in enumerate(clients):
            record = DNSRecord.parse(client.recv(512))
            assert str(record.q.qname) == f"host-{number}.example.com."
