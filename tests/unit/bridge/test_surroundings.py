"""What is read of other programs on the host."""

from __future__ import annotations

import os
from pathlib import Path

from bridge.ports import find_holder
from bridge.surroundings import blocking_chains, meets, other_instances, published_ports

MAP = """table ip bayplan-other {
	map published {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 127.0.0.1 . 6 . 8080 : goto to-tcp-8080-127.0.0.1,
			192.0.2.1 . 17 . 53 : goto to-udp-53-192.0.2.1 }
	}
}
"""

CHAINS = """table ip filter {
	chain INPUT {
		type filter hook input priority 0; policy drop;
	}
	chain FORWARD {
		type filter hook forward priority 0; policy drop;
	}
	chain DOCKER {
	}
}
table inet open {
	chain forward {
		type filter hook forward priority 0; policy accept;
	}
}
"""


def test_other_instances_are_known_by_their_tables() -> None:
    tables = "table ip filter\ntable ip bayplan-mine\ntable ip bayplan-other\n"
    assert other_instances(tables, "bayplan-mine") == ("bayplan-other",)


def test_their_ports_are_read_from_their_maps() -> None:
    ports = published_ports([MAP, "\telements = { 17 . 53 : goto to-udp-53 }"])
    assert ports == {("127.0.0.1", 8080, "tcp"), ("192.0.2.1", 53, "udp"), ("", 53, "udp")}


def test_ports_meet_where_their_addresses_do() -> None:
    ports = {("127.0.0.1", 8080, "tcp"), ("", 53, "udp")}
    assert meets(ports, "127.0.0.1", 8080, "tcp")
    assert meets(ports, "", 8080, "tcp")
    assert meets(ports, "192.0.2.1", 53, "udp")
    assert not meets(ports, "192.0.2.1", 8080, "tcp")
    assert not meets(ports, "", 8080, "udp")
    assert not meets(ports, "", 8081, "tcp")


def test_a_chain_that_drops_by_default_is_found() -> None:
    assert blocking_chains(CHAINS) == ("ip filter FORWARD",)
    assert blocking_chains("") == ()


def test_the_holder_of_a_port_is_found_by_its_socket(tmp_path: Path) -> None:
    net = tmp_path / "thread-self/net"
    net.mkdir(parents=True)
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt inode\n"
    rest = "00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0"
    (net / "tcp").write_text(f"{head}   0: 0100007F:1F90 {rest} 4711 1\n")
    (tmp_path / "12/fd").mkdir(parents=True)
    (tmp_path / "12/comm").write_text("nginx\n")
    os.symlink("socket:[4711]", tmp_path / "12/fd/7")
    assert find_holder(8080, "tcp", proc=tmp_path) == "nginx (pid 12)"
    assert find_holder(8081, "tcp", proc=tmp_path) is None
