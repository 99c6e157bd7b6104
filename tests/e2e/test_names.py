"""What containers call each other and themselves, and whom they ask for other names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_SERVICE = "image: debian:bookworm, init: true, command: sleep 1000"
_STACK = f"""
services:
  db: {{{_SERVICE}, networks: [back]}}
  web: {{{_SERVICE}, networks: [back], links: ["db:store"]}}
  beside: {{{_SERVICE}, network_mode: "service:web"}}
  other: {{{_SERVICE}, networks: [back]}}
networks: {{back: , front: }}
"""


@pytest.fixture(scope="module")
def stack(bay: Bay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("names")
    (directory / "compose.yaml").write_text(_STACK)
    bay.ok("up", "-d", cwd=directory)
    yield directory
    bay.ok("down", "-t", "0", cwd=directory)


def address(bay: Bay, stack: Path, service: str, name: str) -> str:
    """What a service finds under a name, empty where it finds nothing."""
    found = bay("exec", "-T", service, "getent", "ahostsv4", name, cwd=stack).out.split()
    return found[0] if found else ""


def hosts(bay: Bay, stack: Path, service: str) -> str:
    return bay.ok("exec", "-T", service, "cat", "/etc/hosts", cwd=stack)


def test_the_alias_of_a_link_is_known_to_who_links_alone(bay: Bay, stack: Path) -> None:
    db = address(bay, stack, "web", "db")
    assert db
    assert address(bay, stack, "web", "store") == db
    assert address(bay, stack, "beside", "store") == db
    assert address(bay, stack, "other", "store") == ""
    assert address(bay, stack, "other", "db") == db


def test_a_container_of_another_project_is_found_by_an_external_link(
    bay: Bay, stack: Path, project: Callable[..., Path]
) -> None:
    network = f"networks: {{default: {{name: {stack.name}_back, external: true}}}}\n"
    service = f'{{{_SERVICE}, external_links: ["{stack.name}-db-1:elsewhere"]}}'
    directory = project(f"services:\n  guest: {service}\n{network}")
    bay.ok("up", "-d", cwd=directory)

    assert address(bay, directory, "guest", "elsewhere") == address(bay, stack, "web", "db")
    assert address(bay, stack, "other", "elsewhere") == ""
    bay.ok("down", "-t", "0", cwd=directory)


def test_a_network_that_comes_or_goes_is_in_the_hosts_file(bay: Bay, stack: Path) -> None:
    before = hosts(bay, stack, "web")
    bay.ok("exec", "-T", "web", "sh", "-c", "echo 192.0.2.7 mine >> /etc/hosts", cwd=stack)
    both = _STACK.replace(
        "web: {" + _SERVICE + ", networks: [back]",
        "web: {" + _SERVICE + ", networks: [back, front]",
    )
    (stack / "compose.yaml").write_text(both)
    bay.ok("up", "-d", cwd=stack)

    name = bay.ok("exec", "-T", "web", "hostname", cwd=stack).strip()
    addresses = bay.ok("exec", "-T", "web", "hostname", "-I", cwd=stack).split()
    assert len(addresses) == 2
    for service in ("web", "beside"):
        lines = [line.split() for line in hosts(bay, stack, service).splitlines()]
        assert sorted(line[0] for line in lines if name in line[1:]) == sorted(addresses)
        assert (["192.0.2.7", "mine"] in lines) is (service == "web")

    (stack / "compose.yaml").write_text(_STACK)
    bay.ok("up", "-d", cwd=stack)
    assert hosts(bay, stack, "web") == f"{before}192.0.2.7 mine\n"
    assert hosts(bay, stack, "beside") == before


_SERVER = """
import sys
from dnslib.server import BaseResolver, DNSServer
from dnslib import A, QTYPE, RR

class Fixed(BaseResolver):
    def resolve(self, request, handler):
        answer = request.reply()
        answer.add_answer(RR(request.q.qname, QTYPE.A, rdata=A("192.0.2.99"), ttl=1))
        return answer

server = DNSServer(Fixed(), address="192.0.2.53", port=53)
server.start_thread()
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_service_s_own_name_server_is_asked_instead_of_the_host_s(
    bay: Bay, project: Callable[..., Path]
) -> None:
    subprocess.run(
        bay.host.inside("ip", "address", "add", "192.0.2.53/32", "dev", "lo"), check=True
    )
    try:
        with subprocess.Popen(
            bay.host.inside(sys.executable, "-c", _SERVER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as server:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            directory = project(f"services:\n  asking: {{{_SERVICE}, dns: 192.0.2.53}}\n")
            bay.ok("up", "-d", cwd=directory)
            assert address(bay, directory, "asking", "made.up.example") == "192.0.2.99"
            assert address(bay, directory, "asking", "asking") not in ("", "192.0.2.99")
            server.kill()
    finally:
        subprocess.run(
            bay.host.inside("ip", "address", "delete", "192.0.2.53/32", "dev", "lo"), check=True
        )
