"""Many threads and processes change networks at a time."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable

from bridge.config import EndpointConfig, NetworkConfig, PublishedPort
from bridge.networks import Networks
from runtime.linux.nftables import Nftables
from tests.integration.bridge.lab import Lab, eventually


def all_at_once(*jobs: Callable[[], None]) -> None:
    """Run the jobs in a thread each; what one of them raises is raised here."""
    failures: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_containers_come_and_go_while_everything_is_repaired(lab: Lab) -> None:
    """Nobody waits for ever, nobody undoes another's work, and in the end all is in order."""
    networks = lab.networks
    front, back = lab.network("front"), lab.network("back")
    done = threading.Event()

    def live(number: int) -> None:
        rng = random.Random(number)
        sandbox_id, service = f"web-{number}", f"shop/{number}"
        for turn in range(12):
            networks.open_sandbox(sandbox_id)
            for network in rng.sample([front, back], rng.randint(1, 2)):
                networks.connect(
                    sandbox_id, EndpointConfig(network_id=network.id, lease_key=sandbox_id)
                )
            port = PublishedPort(container_port=80, host_port=9000 + number)
            if turn % 2:
                networks.balance(service, [port], [sandbox_id])
                assert networks.backends(service) == (sandbox_id,)
            else:
                networks.unpublish(service)
                assert networks.publish(sandbox_id, [port])[0].host_port == 9000 + number
            if rng.random() < 0.5:
                networks.disconnect(sandbox_id, front.id)
            networks.close_sandbox(sandbox_id, release=rng.random() < 0.5)

    def repair() -> None:
        while not done.is_set():
            for network in (front, back):
                networks.ensure(network.id)
            networks.sweep()

    def stop() -> None:
        try:
            all_at_once(*(lambda n=n: live(n) for n in range(6)))
        finally:
            done.set()

    all_at_once(stop, repair)
    networks.sweep()
    assert networks.sweep() == ()
    assert networks.endpoints() == ()
    bridges = {front.interface, back.interface, "lo"}
    eventually(lambda: lab.links() <= bridges | {"sit0", "tunl0"}, "the links are gone")


def test_many_ports_are_few_transactions(lab: Lab) -> None:
    """Who comes while another is at the rules is taken along by the next."""
    network = lab.network("front")
    names = [f"web-{number}" for number in range(24)]
    for name in names:
        lab.container(name, network)
    before = generation(lab)
    start = threading.Barrier(len(names))

    def publish(name: str) -> None:
        start.wait()
        lab.networks.publish(name, [PublishedPort(container_port=80)])

    all_at_once(*(lambda n=n: publish(n) for n in names))
    assert generation(lab) - before < len(names)
    assert lab.networks.ensure(network.id) == ()
    rules = lab.host.run("nft", "list", "ruleset")
    assert rules.count("dnat to") == len(names)


OTHER_PROCESS = """
import sys
from pathlib import Path
from bridge.config import EndpointConfig, PublishedPort
from bridge.networks import Networks
networks = Networks(Path(sys.argv[1]), Path(sys.argv[2]))
for turn in range(10):
    sandbox_id = f"{sys.argv[3]}-{turn}"
    networks.open_sandbox(sandbox_id)
    networks.connect(sandbox_id, EndpointConfig(network_id="id-front"))
    networks.publish(sandbox_id, [PublishedPort(container_port=80)])
    networks.ensure("id-front")
    if turn % 2:
        networks.close_sandbox(sandbox_id, release=True)
"""


def test_processes_leave_each_others_work_alone(lab: Lab) -> None:
    network = lab.network("front")
    command = [sys.executable, "-c", OTHER_PROCESS, str(lab.root), str(lab.run_dir)]
    processes = [
        subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True)
        for name in ("one", "two", "three")
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(lab.networks.sandboxes()) == 15
    again: Networks = lab.open()
    assert [line for line in again.sweep() if "rules" not in line] == []
    assert again.sweep() == ()
    assert again.ensure(network.id) == ()
    assert again.create(NetworkConfig(id=network.id, name=network.name)) == network
    assert lab.host.run("nft", "list", "ruleset").count("dnat to") == 15


def generation(lab: Lab) -> int:
    """The number of the ruleset, which every transaction moves on by one."""
    with Nftables() as nftables:
        return nftables.generation()
