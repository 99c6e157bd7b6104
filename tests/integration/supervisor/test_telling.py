"""Status, history, events and metrics of containers that really run."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

from tests.integration.supervisor.harbour import Harbour
from tests.integration.supervisor.test_crashes import stack, until


def status(harbour: Harbour) -> dict[str, Any]:
    found = harbour.client.get("/v1/projects/shop/status")
    assert isinstance(found, dict)
    return found


def services(harbour: Harbour) -> dict[str, tuple[str, str]]:
    return {s["name"]: (s["sync"], s["health"]) for s in status(harbour)["services"]}


def test_status_tells_sync_and_health_apart(harbour: Harbour) -> None:
    harbour.up(stack())
    assert services(harbour) == dict.fromkeys(("api", "job", "store"), ("Synced", "Healthy"))
    assert (status(harbour)["sync"], status(harbour)["health"]) == ("Synced", "Healthy")
    assert harbour.result("stop", services=["store"])["ok"]
    assert services(harbour)["store"] == ("OutOfSync", "Suspended")
    assert services(harbour)["api"] == ("Synced", "Healthy")
    (store,) = (s for s in status(harbour)["services"] if s["name"] == "store")
    assert store["differences"][0]["cause"] == "was stopped"
    assert store["last_exit"]["reason"] == "ended by signal 15"


def test_events_of_a_run_are_told_after_a_restart_of_the_daemon(harbour: Harbour) -> None:
    harbour.up(stack())
    harbour.stop()
    harbour.start()
    with harbour.client.stream("GET", "/v1/events", project="shop", since="0") as stream:
        events = list(stream.events())
    told = {f"{event['type']} {event.get('action', '')}".strip() for event in events}
    assert {
        *("plan up", "step", "network create", "volume create", "network connect"),
        *("container create", "container start", "container health_status: healthy"),
    } <= told
    (revision,) = harbour.client.get("/v1/projects/shop/revisions")
    assert (revision["number"], revision["outcome"]) == (1, "done")
    assert [operation["command"] for operation in revision["operations"]] == ["up"]


def test_metrics_count_what_happened_and_show_what_is(harbour: Harbour) -> None:
    lookup = ["sh", "-c", "busybox nslookup store; true"]
    harbour.up(stack(job={"command": lookup, "depends_on": {"store": {}}}))
    id = harbour.containers()["shop-store-1"]["id"]
    os.kill(harbour.runs()[id].pid, signal.SIGKILL)

    def restarted() -> bool:
        store = harbour.containers()["shop-store-1"]
        return (store["state"], store["restarts"]) == ("running", 1)

    until(restarted, "the store runs again")
    text = harbour.text("/metrics")
    values = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            matched = re.fullmatch(r'([a-z_]+(?:\{(?:[a-z_]+="[^"]*",?)+\})?) (\S+)', line)
            assert matched, line
            values[matched[1]] = float(matched[2])
    assert values['bayplan_containers{project="shop",state="running"}'] == 3
    assert values['bayplan_container_events_total{action="die",project="shop"}'] >= 2
    assert values['bayplan_operation_seconds_count{command="up",outcome="done"}'] == 1
    label = '{name="shop-store-1",project="shop",service="store"}'
    assert values[f"bayplan_container_restarts{label}"] == 1
    assert values[f"bayplan_container_memory_bytes{label}"] > 0
    assert values["bayplan_memory_resident_bytes"] > 1e6
    assert values["bayplan_queue_depth"] >= 0
    assert values['bayplan_dns_queries_total{answered="here"}'] >= 1
