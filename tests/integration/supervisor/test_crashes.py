"""Kill the daemon at any moment: the next one and one more `up` put everything right."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.supervisor.harbour import IMAGE, Harbour

CHECK = {"test": ["CMD", "test", "-f", "/data/ready"], "interval": 100_000_000, "retries": 50}


def stack(**changes: dict[str, Any]) -> dict[str, Any]:
    """A store that becomes healthy, two replicas that wait for it, and a job that ends."""
    services: dict[str, dict[str, Any]] = {
        "store": {
            "command": ["sh", "-c", "touch /data/ready; exec sleep 1000"],
            "healthcheck": CHECK,
            "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
            "restart": "unless-stopped",
        },
        "api": {
            "scale": 2,
            "depends_on": {"store": {"condition": "service_healthy"}},
            "restart": "always",
        },
        "job": {"command": ["true"]},
    }
    for name, attributes in changes.items():
        services[name].update(attributes)
    for service in services.values():
        service.update(image=IMAGE, init=True, networks={"default": {}})
        service["stop_grace_period"] = 500_000_000
    return {
        "version": 1,
        "name": "shop",
        "working_dir": "/srv/shop",
        "config_files": ["/srv/shop/compose.yaml"],
        "services": services,
        "networks": {"default": {"name": "shop_default"}},
        "volumes": {"data": {"name": "shop_data"}},
    }


def states(harbour: Harbour) -> dict[str, str]:
    return {name: container["state"] for name, container in harbour.containers().items()}


UP = {
    "shop-store-1": "running",
    "shop-api-1": "running",
    "shop-api-2": "running",
    "shop-job-1": "exited",
}


def until(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"after {seconds:g} s it is still not so that {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("moment", range(1, 22, 2))
def test_an_up_that_is_cut_short_is_completed_by_the_next(harbour: Harbour, moment: int) -> None:
    seen = 0

    def at_the_moment(event: dict[str, Any]) -> bool:
        nonlocal seen
        seen += 1
        return seen == moment

    harbour.kill_when(stack(), at_the_moment)
    harbour.start()
    harbour.up(stack())
    until(lambda: states(harbour) == UP, "everything runs, and the job has ended")
    assert harbour.up(stack()) == []


def test_a_recreation_that_is_cut_short_is_completed(harbour: Harbour) -> None:
    harbour.up(stack())
    changed = stack(store={"environment": {"A": "1"}})
    harbour.kill_when(changed, lambda event: event.get("text") == "Removed")
    harbour.start()
    harbour.up(changed)
    until(lambda: states(harbour) == UP, "everything runs, and the job has ended")
    assert harbour.up(changed) == []


def test_containers_run_on_and_are_known_again(harbour: Harbour) -> None:
    harbour.up(stack())
    before = harbour.containers()
    harbour.kill()
    harbour.start()
    after = harbour.containers()
    assert {n: c["id"] for n, c in after.items()} == {n: c["id"] for n, c in before.items()}
    assert {n: c["started_at"] for n, c in after.items()} == {
        n: c["started_at"] for n, c in before.items()
    }
    assert after["shop-store-1"]["health"] == "healthy"
    assert harbour.up(stack()) == []


def test_an_exit_while_nobody_looked_is_recorded_and_restarted(harbour: Harbour) -> None:
    harbour.up(stack(job={"command": ["sh", "-c", "sleep 0.2; exit 7"]}), wait=False)
    harbour.kill()
    until(lambda: len(harbour.runs()) == 3, "the job has ended")
    harbour.start()
    assert harbour.containers()["shop-job-1"]["exit_code"] == 7


def test_after_a_reboot_everything_comes_up_in_order(harbour: Harbour) -> None:
    harbour.up(stack())
    harbour.kill()
    for monitor in {run.monitor for run in harbour.runs().values()}:
        os.kill(monitor, signal.SIGKILL)
    until(lambda: not harbour.runs(), "all monitors have ended")
    harbour.start()
    until(lambda: states(harbour) == UP, "everything runs again")
    times = {name: c["started_at"] for name, c in harbour.containers().items()}
    assert times["shop-store-1"] < min(times["shop-api-1"], times["shop-api-2"])
    assert harbour.up(stack()) == []


def test_what_was_stopped_stays_stopped_over_a_restart_of_the_daemon(harbour: Harbour) -> None:
    harbour.up(stack())
    assert harbour.result("stop", services=["store"])["ok"]
    harbour.kill()
    harbour.start()
    assert states(harbour) == {**UP, "shop-store-1": "exited"}


def test_a_container_that_crashes_is_started_again_and_counted(harbour: Harbour) -> None:
    harbour.up(stack())
    id = harbour.containers()["shop-store-1"]["id"]
    query = {"project": "shop", "type": "container", "follow": "1"}
    with harbour.client.stream("GET", "/v1/events", **query) as followed:
        events = followed.events()
        os.kill(harbour.runs()[id].pid, signal.SIGKILL)
        seen = []
        for event in events:
            seen.append(event["action"])
            if event["action"] == "start":
                break
    assert seen == ["die", "restart", "start"]
    assert harbour.containers()["shop-store-1"]["restarts"] == 1
