"""Networks, sandboxes and ports come, stay, are repaired and go."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from bridge import namespaces
from bridge.config import EndpointConfig, NetworkConfig, PublishedPort
from bridge.errors import (
    AddressInUse,
    NetworkError,
    NetworkInUse,
    NetworkMismatch,
    NetworkNotFound,
    PortInUse,
    RulesError,
    SandboxNotFound,
    SubnetOverlap,
    TeardownError,
)
from bridge.firewall import Firewall
from tests.integration.bridge.lab import Lab, eventually


def test_nothing_is_left_when_everything_was_closed(lab: Lab) -> None:
    links, tables = lab.links(), lab.tables()
    front, back = lab.network("front"), lab.network("back", internal=True)
    lab.container("web", front, back)
    lab.container("store", back)
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
    assert len(lab.links() - links) == 5
    assert lab.tables() - tables
    for sandbox_id in ("web", "store"):
        lab.networks.close_sandbox(sandbox_id, release=True)
    for network in (front, back):
        lab.networks.remove(network.id)
    lab.networks.close()
    eventually(lambda: lab.links() == links, "the links are gone")
    assert lab.tables() == tables
    assert list((lab.run_dir / "netns").iterdir()) == []


def test_asking_twice_changes_nothing(lab: Lab) -> None:
    first = lab.network("front", labels={"a": "1"})
    lab.container("web", first)
    port = PublishedPort(container_port=80)
    (published,) = lab.networks.publish("web", [port])
    endpoint = lab.endpoint("web", first)
    before = lab.host.run("nft", "list", "ruleset"), lab.host.run("ip", "address")

    assert lab.network("front", labels={"a": "1"}) == first
    lab.container("web", first)
    assert lab.endpoint("web", first) == endpoint
    assert lab.networks.publish("web", [port]) == (published,)
    assert lab.networks.ensure(first.id) == ()
    assert lab.networks.sweep() == ()
    assert (lab.host.run("nft", "list", "ruleset"), lab.host.run("ip", "address")) == before


def test_a_network_with_another_configuration_is_refused(lab: Lab) -> None:
    network = lab.network("front")
    with pytest.raises(NetworkMismatch, match="internal"):
        lab.network("front", internal=True)
    assert lab.networks.get(network.id) == network


def test_a_subnet_that_the_host_already_reaches_is_refused_and_never_chosen(lab: Lab) -> None:
    lab.host.run("ip", "link", "add", "vpn0", "type", "bridge")
    lab.host.run("ip", "link", "set", "vpn0", "up")
    lab.host.run("ip", "route", "add", "10.192.0.0/12", "dev", "vpn0")
    network = lab.network("front")
    assert network.subnet.startswith("10.2")  # the half of the pool that is free
    with pytest.raises(SubnetOverlap, match="vpn0"):
        lab.network("back", subnet="10.195.1.0/24")
    with pytest.raises(SubnetOverlap, match="network front"):
        lab.network("back", subnet=network.subnet)
    assert [n.name for n in lab.networks.list()] == ["front"]


def test_a_network_as_asked_for(lab: Lab) -> None:
    network = lab.network(
        "front",
        subnet="192.168.77.0/24",
        gateway="192.168.77.254",
        ip_range="192.168.77.128/28",
        mtu=1400,
        options={"com.docker.network.bridge.name": "shop0"},
    )
    web = lab.container("web", network)
    assert network.interface == "shop0"
    assert web.address == "192.168.77.128"
    assert "via 192.168.77.254" in web.run("ip", "route")
    assert "mtu 1400" in web.run("ip", "link", "show", "eth0")
    assert "mtu 1400" in lab.host.run("ip", "link", "show", "shop0")
    lab.networks.close_sandbox("web", release=True)
    lab.networks.remove(network.id)
    assert "shop0" not in lab.links()


IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2  # ip(7); the socket module lacks them


def uplink(lab: Lab, name: str, mtu: int, *route: str) -> None:
    lab.host.run("ip", "link", "add", name, "mtu", str(mtu), "type", "bridge")
    lab.host.run("ip", "link", "set", name, "up")
    lab.host.run("ip", "route", "add", "default", "dev", name, *route)


def test_a_network_of_many_gets_a_subnet_in_which_they_have_room(lab: Lab) -> None:
    network = lab.networks.create(NetworkConfig(id="many", name="many", endpoints=500))
    assert network.subnet.endswith("/22") and network.room == 1021
    assert lab.networks.create(NetworkConfig(id="many", name="many", endpoints=1)) == network


def test_a_network_inherits_the_mtu_of_the_way_out(lab: Lab) -> None:
    assert lab.network("no-way-out").mtu is None
    uplink(lab, "tunnel", 1420)
    network = lab.network("front")
    web, store = lab.container("web", network), lab.container("store", network)
    for place in (lab.host, web, store):
        assert "mtu 1420" in place.run("ip", "link"), place
    store.serve(7, "store")
    with web.socket(socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        client.connect((store.address, 7))
        client.send(bytes(1420 - 28))
        assert client.recv(100).startswith(b"store")
        with pytest.raises(OSError, match="too long"):
            client.send(bytes(1420 - 27))
    assert lab.network("inside", internal=True).mtu is None
    assert lab.network("told", mtu=1300).mtu == 1300
    option = {"com.docker.network.driver.mtu": "1400"}
    assert lab.network("told-by-option", options=option).mtu == 1400
    # A network keeps what it has.
    lab.host.run("ip", "link", "set", "tunnel", "mtu", "1380")
    assert lab.network("front") == network
    assert lab.networks.ensure(network.id) == ()
    assert lab.network("new").mtu == 1380


def test_of_several_ways_out_the_smallest_mtu_is_taken_unless_they_agree(lab: Lab) -> None:
    uplink(lab, "jumbo0", 9000, "metric", "1")
    assert lab.network("one").mtu == 9000
    uplink(lab, "jumbo1", 9000, "metric", "2")
    assert lab.network("both").mtu == 9000
    uplink(lab, "plain", 4000, "metric", "3")
    assert lab.network("differing").mtu is None  # 1500
    uplink(lab, "small", 9000, "metric", "4", "mtu", "1450")
    assert lab.network("a-small-one").mtu == 1450
    for name in ("jumbo0", "jumbo1", "plain", "small"):
        lab.host.run("ip", "link", "delete", name)
    uplink(lab, "first", 1400, "metric", "1")
    lab.host.run("ip", "link", "add", "second", "mtu", "1400", "type", "bridge")
    lab.host.run("ip", "link", "set", "second", "up")
    hops = ("nexthop", "dev", "first", "nexthop", "dev", "second")
    lab.host.run("ip", "route", "replace", "default", "metric", "1", *hops)
    assert lab.network("multipath").mtu == 1400


def test_an_interface_of_somebody_else_is_not_taken_over(lab: Lab) -> None:
    lab.host.run("ip", "link", "add", "shop0", "type", "bridge")
    options = {"com.docker.network.bridge.name": "shop0"}
    with pytest.raises(NetworkError, match="another one has that name"):
        lab.network("front", options=options)
    assert lab.networks.list() == ()
    assert "shop0" in lab.links()


def test_a_network_in_use_is_not_removed(lab: Lab) -> None:
    network = lab.network("front")
    lab.container("web", network)
    with pytest.raises(NetworkInUse, match="web"):
        lab.networks.remove(network.id)
    lab.networks.close_sandbox("web", release=True)
    lab.networks.remove(network.id)
    with pytest.raises(NetworkNotFound):
        lab.networks.get(network.id)


def test_what_is_not_there_is_named(lab: Lab) -> None:
    network = lab.network("front")
    with pytest.raises(SandboxNotFound, match="nobody"):
        lab.networks.connect("nobody", EndpointConfig(network_id=network.id))
    lab.networks.open_sandbox("web")
    with pytest.raises(NetworkNotFound, match="nowhere"):
        lab.networks.connect("web", EndpointConfig(network_id="nowhere"))
    with pytest.raises(NetworkError, match="plain name"):
        lab.networks.open_sandbox("../web")
    lab.networks.close_sandbox("nobody", release=True)
    lab.networks.disconnect("web", network.id)


def test_an_endpoint_as_asked_for(lab: Lab) -> None:
    network = lab.network("front", subnet="192.168.77.0/24")
    path = lab.networks.open_sandbox("web")
    config = EndpointConfig(
        network_id=network.id, address="192.168.77.9", mac="02:00:00:00:00:77", interface="lan0"
    )
    endpoint = lab.networks.connect("web", config)
    assert (endpoint.address, endpoint.mac, endpoint.interface) == (
        "192.168.77.9",
        "02:00:00:00:00:77",
        "lan0",
    )
    shown = lab.host.run("nsenter", f"--net={path}", "ip", "address", "show", "lan0")
    assert "192.168.77.9/24" in shown
    assert "02:00:00:00:00:77" in shown
    lab.networks.open_sandbox("other")
    with pytest.raises(AddressInUse, match="sandbox web"):
        lab.networks.connect("other", config)


def test_a_lease_key_keeps_its_address_until_it_is_released(lab: Lab) -> None:
    network = lab.network("front")

    def connect(sandbox_id: str, key: str) -> str:
        lab.networks.open_sandbox(sandbox_id)
        config = EndpointConfig(network_id=network.id, lease_key=key)
        return lab.networks.connect(sandbox_id, config).address

    first = connect("web-a", "web-1")
    lab.networks.close_sandbox("web-a", release=False)
    assert connect("store-a", "store-1") != first
    assert connect("web-b", "web-1") == first
    # A second generation beside the first has an address of its own meanwhile.
    beside = connect("web-c", "web-1")
    assert beside != first
    lab.networks.close_sandbox("web-b", release=False)
    lab.networks.close_sandbox("web-c", release=False)
    assert connect("web-d", "web-1") == first


def test_two_generations_of_a_replica_have_the_keys_address_in_turn(lab: Lab) -> None:
    network = lab.network("front")
    neighbour = lab.container("neighbour", network)

    def replica(sandbox_id: str) -> str:
        place = lab.container(sandbox_id, network, lease_key="shop/web/1")
        place.serve(80, sandbox_id)
        return place.address

    first = replica("one")
    second = replica("two")  # starts before the first is stopped
    assert second != first
    for sandbox_id, address in (("one", first), ("two", second)):
        assert neighbour.ask(address, 80) == (sandbox_id, neighbour.address)
    config = EndpointConfig(network_id=network.id, lease_key="shop/web/1")
    lab.networks.close_sandbox("one", release=False)
    # It stays where it is, though the key's own address is free now.
    assert lab.networks.connect("two", config).address == second
    assert replica("three") == first
    assert neighbour.ask(first, 80) == ("three", neighbour.address)
    lab.networks.close_sandbox("two", release=False)
    lab.networks.close_sandbox("three", release=False)
    assert replica("four") == first  # and stop-first it is the same again
    # The other generation's address went with it.
    taken = {lab.endpoint("four", network).address, neighbour.address}
    assert {e.address for e in lab.networks.endpoints()} == taken
    with closing(sqlite3.connect(lab.root / "networks" / "leases.db")) as database:
        keys = [key for (key,) in database.execute("SELECT lease_key FROM leases ORDER BY 1")]
    assert keys == ["neighbour", "shop/web/1"]


def test_a_generation_that_leaves_the_network_or_is_lost_keeps_no_lease(lab: Lab) -> None:
    network = lab.network("front")
    for name in ("one", "two", "three"):
        lab.container(name, network, lease_key="shop/web/1")
    lab.networks.disconnect("two", network.id)
    namespaces.release(lab.networks.namespace("three"))
    assert lab.networks.sweep() != ()
    with closing(sqlite3.connect(lab.root / "networks" / "leases.db")) as database:
        assert database.execute("SELECT lease_key FROM leases").fetchall() == [("shop/web/1",)]


def test_an_address_that_was_asked_for_is_not_had_by_two_generations(lab: Lab) -> None:
    network = lab.network("front", subnet="10.77.0.0/24")
    settings = {"address": "10.77.0.9", "lease_key": "shop/web/1"}
    lab.container("one", network, **settings)
    with pytest.raises(AddressInUse, match="in use by sandbox one"):
        lab.container("two", network, **settings)
    lab.networks.close_sandbox("one", release=False)
    assert lab.container("two", network, **settings).address == "10.77.0.9"


def test_networks_are_attached_and_detached_while_running(lab: Lab) -> None:
    front, back = lab.network("front"), lab.network("back")
    web, store = lab.container("web", front), lab.container("store", back)
    store.serve(80, "store")
    web.serve(80, "web")
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
    assert web.cannot_reach(store.address, 80)
    lab.container("web", back)
    assert web.reaches(store.address, 80)
    # The port follows to the network that is left, and so does the default route.
    lab.networks.disconnect("web", front.id)
    assert f"via {back.gateway}" in web.run("ip", "route", "show", "default")
    assert lab.host.reaches("127.0.0.1", 8080)
    lab.networks.disconnect("web", back.id)
    assert lab.host.ask("127.0.0.1", 8080) is None
    assert "eth" not in web.run("ip", "link")


def test_the_highest_priority_has_the_default_route(lab: Lab) -> None:
    front, back = lab.network("front"), lab.network("back")
    web = lab.container("web", front)
    lab.networks.connect("web", EndpointConfig(network_id=back.id, priority=10))
    assert f"via {back.gateway}" in web.run("ip", "route", "show", "default")


def test_a_port_of_another_program_is_refused_with_its_name(lab: Lab) -> None:
    network = lab.network("front")
    lab.container("web", network)
    with socket.create_server(("127.0.0.1", 8080)):
        with pytest.raises(PortInUse, match=rf"0\.0\.0\.0:8080/tcp.*\(pid {os.getpid()}\)"):
            lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
        assert lab.networks.published("web") == ()
        lab.networks.publish(
            "web", [PublishedPort(container_port=80, host_port=8080, protocol="udp")]
        )
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])


def test_a_port_of_another_sandbox_is_refused_whatever_the_address(lab: Lab) -> None:
    network = lab.network("front")
    lab.container("web", network)
    lab.container("other", network)
    lab.networks.publish(
        "web", [PublishedPort(container_port=80, host_port=8080, host_ip="127.0.0.1")]
    )
    both = [
        PublishedPort(container_port=80, host_port=8081),
        PublishedPort(container_port=80, host_port=8080),
    ]
    with pytest.raises(PortInUse, match="sandbox web"):
        lab.networks.publish("other", both)
    assert lab.networks.published("other") == ()
    lab.networks.close_sandbox("web", release=True)
    lab.networks.publish("other", both)


def test_a_port_of_another_instance_is_refused(lab: Lab) -> None:
    lab.container("web", lab.network("front"))
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
    other = lab.open("other")
    network = other.create(NetworkConfig(id="n", name="n"))
    other.open_sandbox("theirs")
    other.connect("theirs", EndpointConfig(network_id=network.id))
    wanted = PublishedPort(container_port=80, host_port=8080, host_ip="127.0.0.1")
    with pytest.raises(PortInUse, match="another instance"):
        other.publish("theirs", [wanted])
    other.publish("theirs", [PublishedPort(container_port=80, host_port=8080, protocol="udp")])
    lab.networks.unpublish("web")
    other.publish("theirs", [wanted])
    other.close_sandbox("theirs", release=True)
    other.remove(network.id)


def test_chains_of_others_that_drop_what_passes_are_told(lab: Lab) -> None:
    lab.network("front")
    assert lab.networks.obstacles() == ()
    chain = "{ type filter hook forward priority filter; policy drop; }"
    lab.host.run("nft", f"add table ip filter; add chain ip filter FORWARD {chain}")
    lab.host.run("nft", f"add table inet fw; add chain inet fw pass {chain}")
    assert set(lab.networks.obstacles()) == {"ip filter FORWARD", "inet fw pass"}


def test_a_port_on_an_address_that_the_host_lacks_is_refused(lab: Lab) -> None:
    lab.container("web", lab.network("front"))
    port = PublishedPort(container_port=80, host_port=8080, host_ip="192.0.2.200")
    with pytest.raises(NetworkError, match=r"this host has no address 192\.0\.2\.200"):
        lab.networks.publish("web", [port])


def test_a_sandbox_on_internal_networks_only_publishes_nothing(lab: Lab) -> None:
    lab.container("web", lab.network("inside", internal=True))
    with pytest.raises(NetworkError, match="no network that leads out"):
        lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])


def test_ports_are_chosen_where_none_is_given(lab: Lab) -> None:
    network = lab.network("front")
    web = lab.container("web", network)
    web.serve(80, "web")
    ports = lab.networks.publish(
        "web",
        [
            PublishedPort(container_port=80),
            PublishedPort(container_port=80, host_ip="127.0.0.1"),
            PublishedPort(container_port=80, protocol="udp"),
        ],
    )
    assert len({(p.host_port, p.protocol) for p in ports}) == 3
    for port in ports:
        assert lab.host.ask("127.0.0.1", port.host_port, protocol=port.protocol) is not None


DRIFT = {
    "the rules are flushed": "nft flush ruleset",
    "the table is deleted": "nft delete table ip $TABLE",
    "a published port is taken out": "nft flush map ip $TABLE published-any",
    "a rule is added that drops": "nft insert rule ip $TABLE forward drop",
    "the bridge is deleted": "ip link delete $BRIDGE",
    "the bridge is down": "ip link set $BRIDGE down",
    "the bridge has lost its address": "ip address flush dev $BRIDGE",
    "the bridge has another address": "ip address add 192.0.2.7/24 dev $BRIDGE",
    "the endpoint's link is deleted": "ip link delete $LINK",
    "the endpoint's link is down": "ip link set $LINK down",
    "the endpoint's link is on no bridge": "ip link set $LINK nomaster",
    "forwarding is off": "sysctl -qw net.ipv4.ip_forward=0",
}


@pytest.mark.parametrize("command", DRIFT.values(), ids=DRIFT.keys())
def test_drift_is_repaired(lab: Lab, command: str) -> None:
    network = lab.network("front")
    web, beside = lab.container("web", network), lab.container("beside", network)
    neighbour = lab.neighbour()
    web.serve(80, "web")
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
    assert lab.networks.ensure(network.id) == ()
    (table,) = lab.tables()
    link = lab.endpoint("web", network).link
    for name, value in (("TABLE", table), ("BRIDGE", network.interface), ("LINK", link)):
        command = command.replace(f"${name}", value)
    assert lab.networks.drifted() == set()
    lab.host.run("sh", "-c", command)
    assert lab.networks.drifted() == ({network.id} if "ip " in command[:3] else set())
    assert lab.networks.ensure(network.id) != ()
    assert lab.networks.ensure(network.id) == ()
    assert lab.networks.drifted() == set()
    # Where an address or a link was gone, the kernel forgets the connections of it a moment
    # later (nf_nat_masquerade.c), and may take a new one for an old one.
    for place, address, port in (
        (lab.host, "127.0.0.1", 8080),
        (neighbour, "198.51.100.1", 8080),
        (beside, web.address, 80),
        (web, "198.51.100.1", 8080),  # its own port, which wants the bridge port's help
    ):
        eventually(partial(place.reaches, address, port), f"{address} is reached")
    assert "192.0.2.7" not in lab.host.run("ip", "address")


def test_taking_down_goes_on_after_a_failure_and_tells_all(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = lab.network("front")
    lab.container("web", network)
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])

    def fail(*_: object) -> None:
        raise RulesError("no rules today")

    with monkeypatch.context() as patched:
        patched.setattr(Firewall, "apply", fail)
        with pytest.raises(NetworkError) as caught:
            lab.networks.close_sandbox("web", release=True)
    assert isinstance(caught.value, TeardownError)
    assert [str(exc) for exc in caught.value.exceptions] == ["no rules today"]
    assert lab.networks.sandboxes() == ()
    assert lab.networks.ensure(network.id) == ("put the packet filter rules in place",)
    assert "8080" not in lab.host.run("nft", "list", "ruleset")


def test_a_namespace_that_cannot_be_made_is_reported(lab: Lab) -> None:
    (lab.run_dir / "netns").rename(lab.run_dir / "away")
    with pytest.raises(NetworkError, match="cannot make a network namespace for sandbox web"):
        lab.networks.open_sandbox("web")


def test_rules_of_others_are_left_alone(lab: Lab) -> None:
    lab.host.run("nft", "add table ip other; add chain ip other c; add rule ip other c accept")
    before = lab.host.run("nft", "list", "table", "ip", "other")
    network = lab.network("front")
    assert lab.networks.ensure(network.id) == ()
    lab.networks.remove(network.id)
    assert lab.host.run("nft", "list", "table", "ip", "other") == before


def test_two_instances_do_not_touch_each_other(lab: Lab) -> None:
    other = lab.open("other")
    mine = lab.network("front")
    web = lab.container("web", mine)
    web.serve(80, "mine")
    theirs = other.create(NetworkConfig(id=mine.id, name=mine.name))
    path = other.open_sandbox("web")
    endpoint = other.connect("web", EndpointConfig(network_id=theirs.id))
    assert theirs.interface != mine.interface
    assert theirs.subnet != mine.subnet
    assert lab.networks.sweep() == ()
    assert other.sweep() == ()
    assert lab.networks.ensure(mine.id) == ()
    assert other.ensure(theirs.id) == ()
    # Isolated from each other as any two networks are.
    fd = os.open(path, os.O_RDONLY)
    try:
        stranger = namespaces.run_inside(fd, lambda: socket.socket())
    finally:
        os.close(fd)
    with stranger:
        stranger.settimeout(0.25)
        with pytest.raises(OSError, match="timed out"):
            stranger.connect((web.address, 80))
    assert endpoint.address != web.address
    other.close_sandbox("web", release=True)
    other.remove(theirs.id)
    assert lab.host.reaches(web.address, 80)


def test_many_threads_at_once(lab: Lab) -> None:
    network = lab.network("front")
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            sandbox_id = f"web-{number}"
            lab.networks.open_sandbox(sandbox_id)
            lab.networks.connect(sandbox_id, EndpointConfig(network_id=network.id))
            lab.networks.publish(sandbox_id, [PublishedPort(container_port=80)])
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len({e.address for e in lab.networks.endpoints()}) == 20
    assert lab.networks.sweep() == ()


def test_a_sweep_after_a_reboot_keeps_networks_and_leases(lab: Lab) -> None:
    network = lab.network("front")
    config = EndpointConfig(network_id=network.id, lease_key="web-1")
    path = lab.networks.open_sandbox("web")
    address = lab.networks.connect("web", config).address
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
    # What a reboot takes: namespaces, links, rules.
    namespaces.release(path)
    lab.host.run("ip", "link", "delete", network.interface)
    lab.host.run("nft", "flush", "ruleset")
    after = lab.open()
    done = after.sweep()
    assert any("forgot sandbox web" in line for line in done)
    assert any("created bridge" in line for line in done)
    assert after.list() == (network,)
    assert after.endpoints() == ()
    after.open_sandbox("web-again")
    assert after.connect("web-again", config).address == address
    after.publish("web-again", [PublishedPort(container_port=80, host_port=8080)])


CRASH = """
import os, signal, sys
from pathlib import Path
from bridge import firewall, namespaces, netlink
from bridge.config import EndpointConfig, NetworkConfig, PublishedPort
from bridge.leases import LeaseDatabase
from bridge.networks import Networks

countdown = int(sys.argv[3])

def counted(owner, name):
    original = getattr(owner, name)
    def call(*args, **kwargs):
        global countdown
        countdown -= 1
        if countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, call)

for owner, names in (
    (netlink.NetlinkSocket, ("request",)),
    (LeaseDatabase, ("_rows",)),
    (firewall.Firewall, ("_run",)),
    (namespaces, ("create", "release")),
    (namespaces.mounts, ("bind",)),
):
    for name in names:
        counted(owner, name)

networks = Networks(Path(sys.argv[1]), Path(sys.argv[2]))
networks.sweep()
networks.create(NetworkConfig(id="a", name="a"))
networks.create(NetworkConfig(
    id="b", name="b", options={"com.docker.network.bridge.name": "crash0"}))
networks.open_sandbox("web")
networks.connect("web", EndpointConfig(network_id="a", lease_key="web-1"))
networks.connect("web", EndpointConfig(network_id="b", lease_key="web-1"))
networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
networks.open_sandbox("next")
networks.connect("next", EndpointConfig(network_id="a", lease_key="web-1"))
service = PublishedPort(container_port=80, host_port=8081)
for backends in (["web"], ["web", "next"], ["next"], []):
    networks.balance("shop/web", [service], backends)
networks.close_sandbox("next", release=False)
networks.unpublish("shop/web")
networks.disconnect("web", "b")
networks.remove("b")
networks.close_sandbox("web", release=True)
networks.remove("a")
networks.close()
"""


def test_killed_at_any_point_the_next_start_puts_all_in_order(lab: Lab, tmp_path: Path) -> None:
    """A process is killed at its n-th step, for all n; then everything works, and then goes."""
    script = tmp_path / "crash.py"
    script.write_text(CRASH)
    links = lab.links()
    step = 0
    while True:
        step += 7 if "BAYPLAN_TEST_EVERY_STEP" not in os.environ else 1
        command = [sys.executable, str(script), str(lab.root), str(lab.run_dir), str(step)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        networks = lab.open()
        networks.sweep()
        assert networks.sweep() == (), step
        options = {"com.docker.network.bridge.name": "crash0"}
        networks.create(NetworkConfig(id="a", name="a"))
        networks.create(NetworkConfig(id="b", name="b", options=options))
        networks.open_sandbox("web")
        for network_id in ("a", "b"):
            networks.connect("web", EndpointConfig(network_id=network_id, lease_key="web-1"))
        networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
        service = PublishedPort(container_port=80, host_port=8081)
        networks.balance("shop/web", [service], ["web"])
        for network_id in ("a", "b"):
            assert networks.ensure(network_id) == (), step
        assert networks.port_owners() == ("shop/web", "web")
        networks.unpublish("shop/web")
        for sandbox_id in networks.sandboxes():
            networks.close_sandbox(sandbox_id, release=True)
        for network_id in ("a", "b"):
            networks.remove(network_id)
        networks.close()
        eventually(lambda: lab.links() == links, f"nothing is left of step {step}")
        assert lab.tables() == set()
    assert step > 50
