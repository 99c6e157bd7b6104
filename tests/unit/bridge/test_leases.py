"""The lease database keeps its promises across threads, processes and restarts."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bridge.addresses import choose_interface, lease_address
from bridge.config import Endpoint, EndpointConfig, Network
from bridge.errors import AddressInUse, AddressPoolExhausted, NetworkError
from bridge.leases import Binding, LeaseDatabase
from bridge.schema import MIGRATIONS, SCHEMA_VERSION

NETWORK = Network(
    id="n1",
    name="front",
    subnet="10.9.0.0/29",
    gateway="10.9.0.1",
    interface="bp0",
    labels={"a": "b"},
    options={"c": "d"},
)


@pytest.fixture
def leases(tmp_path: Path) -> LeaseDatabase:
    database = LeaseDatabase(tmp_path / "leases.db")
    database.add_network(NETWORK)
    return database


def take(leases: LeaseDatabase, sandbox_id: str, key: str | None = None, **more: str) -> str:
    """Lease an address and put an endpoint on it."""
    config = EndpointConfig(network_id="n1", lease_key=key, **more)  # type: ignore[arg-type]  # str only
    with leases.transaction():
        address, lease_key = lease_address(leases, NETWORK, sandbox_id, config)
        leases.add_sandbox(sandbox_id)
        leases.add_endpoint(
            Endpoint(
                sandbox_id=sandbox_id,
                network_id="n1",
                address=str(address),
                prefix=29,
                gateway="10.9.0.1",
                mac="02:42:0a:09:00:02",
                interface="eth0",
                link=f"bv-{sandbox_id}",
                aliases=("web", sandbox_id),
                lease_key=lease_key,
            )
        )
    return str(address)


def test_what_was_written_is_read_after_a_restart(tmp_path: Path, leases: LeaseDatabase) -> None:
    take(leases, "web", "web-1")
    leases.close()
    again = LeaseDatabase(tmp_path / "leases.db")
    assert again.networks() == (NETWORK,)
    assert again.network("n2") is None
    (endpoint,) = again.endpoints(sandbox_id="web")
    assert endpoint.aliases == ("web", "web")
    assert again.leases("n1") == {"web-1": IPv4Address("10.9.0.2")}


def test_a_lease_outlives_its_endpoint(leases: LeaseDatabase) -> None:
    first = take(leases, "web-a", "web-1")
    leases.delete_sandbox("web-a")
    assert leases.endpoints() == ()
    assert take(leases, "other", "other-1") != first
    assert take(leases, "web-b", "web-1") == first


def test_an_idle_lease_gives_way_when_nothing_else_is_left(leases: LeaseDatabase) -> None:
    for number in range(5):
        take(leases, f"s{number}")
    leases.delete_sandbox("s3")
    leases.delete_sandbox("s1")
    assert take(leases, "new") == "10.9.0.3"  # what s1 had: the oldest
    assert take(leases, "newer") == "10.9.0.5"
    with pytest.raises(AddressPoolExhausted, match="network front"):
        take(leases, "newest")


def test_an_explicit_address_takes_over_an_idle_lease_but_not_a_used_one(
    leases: LeaseDatabase,
) -> None:
    first = take(leases, "web", "web-1")
    with pytest.raises(AddressInUse, match="sandbox web"):
        take(leases, "other", "other-1", address=first)
    leases.delete_sandbox("web")
    assert take(leases, "other", "other-1", address=first) == first
    assert take(leases, "web", "web-1") != first


def test_a_failed_transaction_leaves_nothing(leases: LeaseDatabase) -> None:
    with pytest.raises(ZeroDivisionError), leases.transaction():
        leases.add_sandbox("web")
        with leases.transaction():
            leases.add_sandbox("store")
        raise ZeroDivisionError
    assert leases.sandboxes() == ()


def test_a_port_meets_every_port_that_it_would_shadow(leases: LeaseDatabase) -> None:
    leases.add_sandbox("web")

    def bind(host_ip: str, port: int) -> None:
        leases.set_binding(
            Binding(
                host_ip=host_ip,
                host_port=port,
                protocol="tcp",
                owner="web",
                container_port=80,
                sandboxes=("web",),
            )
        )

    bind("127.0.0.1", 80)
    bind("", 81)
    assert leases.port_holder("127.0.0.1", 80, "tcp") == "web"
    assert leases.port_holder("", 80, "tcp") == "web"
    assert leases.port_holder("192.0.2.1", 80, "tcp") is None
    assert leases.port_holder("127.0.0.1", 80, "udp") is None
    assert leases.port_holder("127.0.0.1", 81, "tcp") == "web"
    leases.delete_ports("web")
    assert leases.bindings() == ()
    assert leases.port_holder("", 80, "tcp") is None


def test_ports_of_an_older_database_lead_where_they_led(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(path)) as old, old:
        old.executescript(MIGRATIONS[0])
        old.execute("INSERT INTO sandboxes VALUES ('web'), ('store')")
        for port, sandbox_id, target in ((80, "web", 8080), (443, "web", 8443), (90, "store", 90)):
            old.execute("INSERT INTO ports VALUES ('', ?, 'tcp', ?)", (port, sandbox_id))
            old.execute(
                "INSERT INTO backends VALUES ('', ?, 'tcp', ?, ?)", (port, sandbox_id, target)
            )
        old.execute("INSERT INTO ports VALUES ('', 99, 'tcp', 'nobody')")
        old.execute("PRAGMA user_version=1")
    leases = LeaseDatabase(path)
    assert [(b.owner, b.host_port, b.container_port, b.sandboxes) for b in leases.bindings()] == [
        ("web", 80, 8080, ("web",)),
        ("web", 443, 8443, ("web",)),
        ("store", 90, 90, ("store",)),
    ]
    leases.delete_sandbox("web")
    assert leases.bindings(owner="web")[0].sandboxes == ()
    leases.delete_ports("store")
    assert leases.port_owners() == ("web",)
    leases.close()


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(NetworkError, match="schema version"):
        LeaseDatabase(path)


RACE = """
import sys
from pathlib import Path
from bridge.addresses import lease_address
from bridge.config import EndpointConfig
from bridge.leases import LeaseDatabase
leases = LeaseDatabase(Path(sys.argv[1]))
for number in range(40):
    with leases.transaction():
        key, config = f"{sys.argv[2]}-{number}", EndpointConfig(network_id="n1")
        address, _ = lease_address(leases, leases.network("n1"), key, config)
    print(address)
"""


def test_processes_never_get_the_same_address(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    leases = LeaseDatabase(path)
    leases.add_network(
        Network(id="n1", name="f", subnet="10.9.0.0/24", gateway="10.9.0.1", interface="bp0")
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(path), str(number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(3)
    ]
    addresses = "".join(racer.communicate(timeout=60)[0] for racer in racers).split()
    assert len(addresses) == 120
    assert len(set(addresses)) == 120


def test_the_first_free_interface_name_is_chosen() -> None:
    assert choose_interface(set(), None) == "eth0"
    assert choose_interface({"eth0", "eth2", "lan7"}, None) == "eth1"
    assert choose_interface({"eth0"}, "lan0") == "lan0"
