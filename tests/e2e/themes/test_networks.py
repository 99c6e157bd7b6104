"""Themes 9, 11 and 12: ports of ranges, subnets, and addresses that stay."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

Project = Callable[..., Path]

_SERVICE = "image: busybox, init: true, stop_grace_period: 0s"


def published(bay: Bay, directory: Path) -> list[int]:
    """The host's ports of a project, one entry a container."""
    found = []
    for record in bay.containers(directory).values():
        ports = {port["PublishedPort"] for port in record["Publishers"] if port["PublishedPort"]}
        found += sorted(ports)
    return sorted(found)


def address(bay: Bay, directory: Path, service: str, *, index: int = 1) -> str:
    shown = bay.ok("exec", "-T", "--index", str(index), service, "ip", "-4", "-o", "addr", "show",
                   "eth0", cwd=directory)  # fmt: skip
    return shown.split("inet ")[1].split("/")[0]


def test_theme_09_replicas_that_start_at_once_share_a_range_of_ports_without_a_clash(
    bay: Bay, project: Project
) -> None:
    text = (
        f"services:\n  web: {{{_SERVICE}, ports: ['38200-38207:80'], scale: 4}}\n"
        f"  api: {{{_SERVICE}, ports: ['38200-38207:80'], scale: 2}}\n"
    )
    one, two = project(text), project(text.replace("scale: 4", "scale: 1").replace("2}", "1}"))
    runs = [
        subprocess.Popen(
            bay.command("up", "-d"),
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for directory in (one, two)
    ]
    for run in runs:
        _, complaint = run.communicate(timeout=120)
        assert run.returncode == 0, complaint

    assert sorted(published(bay, one) + published(bay, two)) == list(range(38200, 38208))

    full = bay("up", "-d", "--scale", "web=2", cwd=two)
    assert full.status == 1
    assert "all of the ports 0.0.0.0:38200-38207/tcp are in use" in full.err, full.err
    assert len(published(bay, two)) == 2
    bay.ok("up", "-d", "--scale", "web=3", cwd=one)
    bay.ok("up", "-d", "--scale", "web=2", cwd=two)


def test_a_network_without_room_is_told_before_anything_is_made(bay: Bay, project: Project) -> None:
    directory = project(
        f"services:\n  web: {{{_SERVICE}, scale: 4}}\n"
        "networks: {default: {ipam: {config: [{subnet: 10.191.7.0/29}]}}}\n"
    )
    bay.ok("up", "-d", cwd=directory)

    full = bay("up", "-d", "--scale", "web=6", cwd=directory)

    assert full.status == 1
    said = f"2 more containers in network {directory.name}_default (10.191.7.0/29, 4 of 5 taken)"
    assert said in full.err and "bay down, then bay up" in full.err, full.err
    assert len(bay.containers(directory)) == 4
    bay.ok("up", "-d", "--scale", "web=5", cwd=directory)
    bay.ok("up", "-d", "--scale", "web=5", "--force-recreate", cwd=directory)


def test_theme_11_forty_networks_come_up_beside_the_hosts_own_and_go_again(
    bay: Bay, project: Project
) -> None:
    names = [f"n{number}" for number in range(40)]
    directory = project(
        "services:\n"
        f"  hub: {{{_SERVICE}, networks: [{', '.join(names)}]}}\n"
        "networks:\n" + "".join(f"  {name}: {{}}\n" for name in names)
    )

    def subnets() -> dict[str, ipaddress.IPv4Network]:
        found = {}
        for line in bay.host.output("ip", "-4", "-j", "route").splitlines():
            for route in json.loads(line):
                if route["dev"] in bay.host.links() and route.get("protocol") == "kernel":
                    found[route["dev"]] = ipaddress.IPv4Network(route["dst"])
        return found

    own = subnets()
    bay.ok("up", "-d", cwd=directory)
    first = {dev: net for dev, net in subnets().items() if dev not in own}
    assert len(first) == 40
    everything = [*own.values(), *first.values()]
    clashes = [
        (a, b) for n, a in enumerate(everything) for b in everything[n + 1 :] if a.overlaps(b)
    ]
    assert clashes == []
    bay.ok("down", cwd=directory)
    assert subnets() == own

    # A way of the host's, such as a VPN's, into what would be taken next.
    taken = min(first.values())
    bay.host.output("ip", "route", "add", str(taken.supernet(new_prefix=16)), "dev", "lo")
    try:
        bay.ok("up", "-d", cwd=directory)
        again = [net for dev, net in subnets().items() if dev not in own]
        assert len(again) == 40
        assert not any(net.subnet_of(taken.supernet(new_prefix=16)) for net in again)
        bay.ok("down", cwd=directory)
    finally:
        bay.host.output("ip", "route", "del", str(taken.supernet(new_prefix=16)), "dev", "lo")


def test_theme_11_a_subnet_that_is_taken_is_named_with_who_has_it(
    bay: Bay, project: Project
) -> None:
    text = (
        f"services:\n  web: {{{_SERVICE}}}\n"
        "networks: {default: {ipam: {config: [{subnet: 10.123.4.0/24}]}}}\n"
    )
    one, two = project(text), project(text)
    bay.ok("up", "-d", cwd=one)
    failed = bay("up", "-d", cwd=two)
    assert failed.status == 1
    assert "10.123.4.0/24" in failed.err and f"{one.name}_default" in failed.err, failed.err
    assert bay.containers(two) == {}


def test_theme_12_a_replica_keeps_its_address_however_it_is_replaced(
    bay: Bay, project: Project
) -> None:
    text = (
        f"services:\n  web: {{{_SERVICE}, scale: 2, environment: {{MODE: a}}}}\n"
        f"  client: {{{_SERVICE}}}\n"
    )
    directory = project(text)
    bay.ok("up", "-d", cwd=directory)

    def addresses() -> list[str]:
        return [address(bay, directory, "web", index=number) for number in (1, 2)]

    def resolved() -> Counter[str]:
        answer = bay.ok("exec", "-T", "client", "nslookup", "web", cwd=directory)
        lines = [line for line in answer.splitlines() if line.startswith("Address")]
        return Counter(line.split()[-1] for line in lines[1:])

    before = addresses()
    assert set(resolved()) == set(before)
    bay.ok("restart", "-t", "0", "web", cwd=directory)
    assert addresses() == before
    (directory / "compose.yaml").write_text(text.replace("MODE: a", "MODE: b"))
    bay.ok("up", "-d", cwd=directory)
    assert addresses() == before
    bay.ok("up", "-d", "--force-recreate", cwd=directory)
    assert addresses() == before
    assert set(resolved()) == set(before)


def test_theme_12_a_name_leads_to_nobody_who_has_gone(bay: Bay, project: Project) -> None:
    directory = project(f"services:\n  web: {{{_SERVICE}, scale: 3}}\n  client: {{{_SERVICE}}}\n")
    bay.ok("up", "-d", cwd=directory)

    def resolved() -> str:
        command = "nslookup web || true"
        return bay.ok("exec", "-T", "client", "sh", "-c", command, cwd=directory)

    gone = address(bay, directory, "web", index=3)
    assert gone in resolved()
    bay.ok("up", "-d", "--scale", "web=2", cwd=directory)
    assert gone not in resolved()
    left = address(bay, directory, "web", index=1)
    bay.ok("stop", "web", cwd=directory)
    assert left not in resolved()
