"""What others change is noticed at once, and what we change ourselves is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from bridge.config import EndpointConfig, Network, NetworkConfig, PublishedPort
from bridge.watch import NetworkWatch
from tests.integration.bridge.lab import Lab
from tests.integration.bridge.test_lifecycle import DRIFT

QUIET = 0.4  # seconds in which an alarm that comes would have come
MORE_DRIFT = {
    "the bridge has another name": "ip link set $BRIDGE down && ip link set $BRIDGE name other",
    "the bridge has another mtu": "ip link set $BRIDGE mtu 1280",
    "the endpoint's link has another name": "ip link set $LINK down && ip link set $LINK name else",
    "a rule is deleted": "nft flush chain ip $TABLE forward",
}


async def alarm(watch: NetworkWatch, seconds: float = 5) -> frozenset[str] | None:
    """The next one; None when none comes in time."""
    try:
        async with asyncio.timeout(seconds):
            return await anext(watch)
    except TimeoutError:
        return None


def watching(lab: Lab, job: Callable[[NetworkWatch], Awaitable[None]]) -> None:
    async def run() -> None:
        async with NetworkWatch(lab.networks) as watch:
            await job(watch)

    asyncio.run(run())


@pytest.mark.parametrize("command", (DRIFT | MORE_DRIFT).values(), ids=(DRIFT | MORE_DRIFT).keys())
def test_drift_is_noticed_and_repaired_within_a_second(lab: Lab, command: str) -> None:
    network = lab.network("front", mtu=1400)
    lab.network("another")
    web = lab.container("web", network)
    web.serve(80, "web")
    lab.networks.publish("web", [PublishedPort(container_port=80, host_port=8080)])
    lab.networks.sweep()
    (table,) = lab.tables()
    link = lab.endpoint("web", network).link
    for name, value in (("TABLE", table), ("BRIDGE", network.interface), ("LINK", link)):
        command = command.replace(f"${name}", value)

    async def job(watch: NetworkWatch) -> None:
        assert await alarm(watch, QUIET) is None
        await asyncio.to_thread(partial(lab.host.run, "sh", "-c", command))
        began = time.monotonic()
        networks = await alarm(watch)
        assert networks is not None
        assert network.id in networks
        assert any([lab.networks.ensure(network_id) for network_id in sorted(networks)])
        assert time.monotonic() - began < 1
        # The repair is nothing that anybody has to repair.
        assert await alarm(watch, 2 * QUIET) is None
        assert lab.networks.ensure(network.id) == ()

    watching(lab, job)
    assert lab.host.reaches("127.0.0.1", 8080)


def test_what_we_do_ourselves_is_no_alarm(lab: Lab) -> None:
    front = lab.network("front")

    def live() -> None:
        back = lab.networks.create(NetworkConfig(id="back", name="back"))
        for number in range(5):
            sandbox_id = f"web-{number}"
            lab.networks.open_sandbox(sandbox_id)
            for network in (front, back):
                lab.networks.connect(sandbox_id, EndpointConfig(network_id=network.id))
            lab.networks.publish(sandbox_id, [PublishedPort(container_port=80)])
        lab.networks.balance("shop/web", [PublishedPort(container_port=81)], ["web-0", "web-1"])
        lab.networks.disconnect("web-0", back.id)
        for number in range(5):
            lab.networks.close_sandbox(f"web-{number}", release=True)
        lab.networks.remove(back.id)

    async def job(watch: NetworkWatch) -> None:
        next_alarm = asyncio.create_task(alarm(watch, 2))
        await asyncio.to_thread(live)
        assert await next_alarm is None

    watching(lab, job)


def test_what_others_do_with_things_of_their_own_is_no_alarm(lab: Lab) -> None:
    lab.network("front")
    other = lab.open("other")

    def live() -> None:
        lab.host.run("ip", "link", "add", "theirs", "type", "bridge")
        lab.host.run("ip", "link", "set", "theirs", "up")
        lab.host.run("ip", "address", "add", "192.0.2.1/24", "dev", "theirs")
        lab.host.run("nft", "add table ip theirs; add chain ip theirs c")
        lab.host.run("ip", "link", "delete", "theirs")
        other.create(NetworkConfig(id="id-front", name="front"))
        other.remove("id-front")

    async def job(watch: NetworkWatch) -> None:
        await asyncio.to_thread(live)
        assert await alarm(watch, 2 * QUIET) is None

    watching(lab, job)


def test_an_alarm_names_the_network_that_it_is_about(lab: Lab) -> None:
    front, back = lab.network("front"), lab.network("back")

    async def job(watch: NetworkWatch) -> None:
        for network in (back, front):
            lab.host.run("ip", "link", "delete", network.interface)
            assert await alarm(watch) == frozenset({network.id})
            lab.networks.ensure(network.id)

    watching(lab, job)


def test_whoever_is_told_too_much_looks_at_everything(lab: Lab) -> None:
    front, back = lab.network("front"), lab.network("back")

    async def job(watch: NetworkWatch) -> None:
        # More than the socket holds, while the loop does not get to it.
        batch = lab.root.parent / "batch"
        batch.write_text(
            "link add flood type bridge\n"
            + "link set flood up\nlink set flood down\n" * 6000
            + "link delete flood\n"
        )
        lab.host.run("ip", "-batch", str(batch))
        assert await alarm(watch) == frozenset({front.id, back.id})

    watching(lab, job)


def test_a_quarrel_with_another_program_stays_slow(lab: Lab) -> None:
    network = lab.network("front")

    def spoil(network: Network) -> None:
        lab.host.run("ip", "address", "add", "192.0.2.7/24", "dev", network.interface)

    async def job(watch: NetworkWatch) -> None:
        began = time.monotonic()
        for _round in range(4):
            spoil(network)
            assert await alarm(watch) == frozenset({network.id})
            assert lab.networks.ensure(network.id) != ()
        assert time.monotonic() - began > 1.5

    watching(lab, job)
