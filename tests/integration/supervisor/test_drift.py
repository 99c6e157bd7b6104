"""What others do to what is ours is put right, or told, at once: nobody waits for a resync."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from runtime.linux import process
from tests.integration.supervisor.harbour import Harbour
from tests.integration.supervisor.test_crashes import stack, until

AT_ONCE = 5.0
"""Seconds; a second on an idle machine, and a small part of the resync's thirty on a busy one."""


@contextmanager
def drifts(harbour: Harbour) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Gives a function that waits for the next `drift` event of a thing of this kind."""
    with harbour.client.stream("GET", "/v1/events", project="shop", follow="1") as followed:
        events = followed.events()
        began = time.monotonic()

        def next_of(kind: str) -> dict[str, Any]:
            for event in events:
                if event["type"] == "drift" and event["kind"] == kind:
                    assert time.monotonic() - began < AT_ONCE, event
                    return event
            raise AssertionError("the daemon ended")

        yield next_of


def inside(harbour: Harbour, *command: str) -> str:
    prefix = ("nsenter", f"--net=/run/netns/{harbour.netns}")
    return subprocess.run([*prefix, *command], check=True, capture_output=True, text=True).stdout


def interface(harbour: Harbour) -> str:
    (network,) = harbour.client.get("/v1/networks", project="shop")
    return str(network["interface"])


def veths(harbour: Harbour) -> list[str]:
    lines = inside(harbour, "ip", "-o", "link", "show", "type", "veth").splitlines()
    return [line.split()[1].partition("@")[0] for line in lines]


def test_a_deleted_bridge_is_made_again(harbour: Harbour) -> None:
    harbour.up(stack())
    bridge = interface(harbour)
    with drifts(harbour) as drift:
        inside(harbour, "ip", "link", "delete", bridge)
        assert drift("network")["name"] == "shop_default"
    assert bridge in inside(harbour, "ip", "-o", "address", "show", bridge)
    until(lambda: len(veths(harbour)) == 3, "all containers are on it again")


def test_a_deleted_link_is_made_again(harbour: Harbour) -> None:
    harbour.up(stack())
    with drifts(harbour) as drift:
        inside(harbour, "ip", "link", "delete", veths(harbour)[0])
        assert "again" in drift("network")["done"]
    assert len(veths(harbour)) == 3


def test_a_removed_address_and_removed_rules_are_put_back(harbour: Harbour) -> None:
    harbour.up(stack())
    bridge = interface(harbour)
    with drifts(harbour) as drift:
        inside(harbour, "ip", "address", "flush", "dev", bridge)
        drift("network")
    assert "inet " in inside(harbour, "ip", "-o", "address", "show", bridge)
    table = inside(harbour, "nft", "list", "tables").split()[1:]
    with drifts(harbour) as drift:
        inside(harbour, "nft", "delete", "table", *table)
        drift("network")
    assert inside(harbour, "nft", "list", "tables").split()[1:] == table


def test_a_namespace_that_was_let_go_is_held_again(harbour: Harbour) -> None:
    harbour.up(stack())
    id = harbour.containers()["shop-store-1"]["id"]
    path = harbour.run / "netns" / id
    before = path.stat().st_ino
    with drifts(harbour) as drift:
        subprocess.run(["umount", str(path)], check=True)
        assert drift("container")["name"] == "shop-store-1"
    assert path.stat().st_ino == before
    assert harbour.containers()["shop-store-1"]["state"] == "running"


def test_a_container_whose_monitor_is_killed_starts_again(harbour: Harbour) -> None:
    harbour.up(stack())
    id = harbour.containers()["shop-store-1"]["id"]
    with drifts(harbour) as drift:
        os.kill(harbour.runs()[id].monitor, signal.SIGKILL)
        while (event := drift("container"))["name"] != "shop-store-1":
            assert event["done"] == "it is started again"
    assert event["done"] == "it is started again"
    until(
        lambda: harbour.containers()["shop-store-1"]["state"] == "running", "the store runs again"
    )


def test_a_container_whose_monitor_is_killed_stays_down_where_its_policy_says_so(
    harbour: Harbour,
) -> None:
    harbour.up(stack(job={"command": ["sleep", "1000"]}))
    id = harbour.containers()["shop-job-1"]["id"]
    with drifts(harbour) as drift:
        os.kill(harbour.runs()[id].monitor, signal.SIGKILL)
        while (event := drift("container"))["name"] != "shop-job-1":
            assert event["done"] == "it is started again"
    assert event["done"] == "it stays down"
    assert harbour.containers()["shop-job-1"]["exit_code"] == 137


def test_a_container_whose_directory_is_removed_is_made_again(harbour: Harbour) -> None:
    harbour.up(stack())
    before = harbour.containers()["shop-store-1"]
    run = harbour.runs()[before["id"]]
    with drifts(harbour) as drift:
        shutil.rmtree(harbour.root / "containers" / before["id"])
        event = drift("container")
    assert event["done"] == "it was made again and started"
    after = harbour.containers()["shop-store-1"]
    assert after["id"] != before["id"]
    assert after["networks"] == before["networks"]
    until(lambda: not process.runs(run.pid, run.pid_started), "nothing runs unseen")
    until(lambda: harbour.containers()["shop-store-1"]["health"] == "healthy", "it is healthy")
    assert harbour.up(stack()) == []


def test_a_volume_that_is_removed_under_its_container_is_told(harbour: Harbour) -> None:
    harbour.up(stack())
    with drifts(harbour) as drift:
        shutil.rmtree(harbour.root / "volumes" / "shop_data")
        event = drift("volume")
    assert (event["name"], event["done"]) == ("shop_data", "")
    assert "shop-store-1" in event["what"]


def test_the_loss_of_a_volume_is_told_once_more_when_it_was_made_anew(harbour: Harbour) -> None:
    for _ in range(2):
        harbour.up(stack())
        with drifts(harbour) as drift:
            shutil.rmtree(harbour.root / "volumes" / "shop_data")
            assert drift("volume")["name"] == "shop_data"
        assert harbour.result("down", options={"volumes": True, "timeout": 0})["ok"]


def test_what_we_do_ourselves_is_no_drift(harbour: Harbour) -> None:
    harbour.up(stack())
    log = harbour.run / "daemon.log"
    told = len(log.read_text())
    harbour.up(stack(api={"environment": {"A": "1"}, "scale": 3}))
    assert harbour.result("restart", services=[])["ok"]
    assert harbour.result("down", options={"volumes": True})["ok"]
    warnings = [line for line in log.read_text()[told:].splitlines() if "level=warning" in line]
    assert warnings == []
