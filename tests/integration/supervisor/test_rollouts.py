"""Rollouts for real: no request is lost, what fails goes back, a kill -9 costs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.supervisor.harbour import IMAGE, Harbour
from tests.integration.supervisor.visitors import visitors

PORT = 18080
CHECK = {"test": ["CMD", "test", "-f", "/tmp/ready"], "interval": 100_000_000, "retries": 3}
SERVE = "mkdir -p /tmp/www; echo {0} > /tmp/www/index.html; {1}; exec httpd -f -p 80 -h /tmp/www"


def stack(
    text: str, *, ready: bool = True, replicas: int = 1, canary: Any = None, **update: Any
) -> dict[str, Any]:
    """A web service that answers with `text`, and is healthy if it is `ready`."""
    service: dict[str, Any] = {
        "image": IMAGE,
        "command": ["sh", "-c", SERVE.format(text, "touch /tmp/ready" if ready else "echo no")],
        "healthcheck": CHECK,
        "init": True,
        "ports": [{"target": 80, "published": str(PORT), "protocol": "tcp", "mode": "ingress"}],
        "networks": {"default": {}},
        "scale": replicas,
        "stop_grace_period": 500_000_000,
        "deploy": {"update_config": update} if update else {},
        "extensions": {"x-bayplan": {"drain": 2, **({"canary": canary} if canary else {})}},
    }
    return {
        "version": 1,
        "name": "shop",
        "working_dir": "/srv/shop",
        "config_files": ["/srv/shop/compose.yaml"],
        "services": {"web": service},
        "networks": {"default": {"name": "shop_default"}},
    }


def rollouts(harbour: Harbour) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = harbour.client.get("/v1/projects/shop/rollouts")
    return found


def rollout(harbour: Harbour) -> dict[str, Any]:
    return rollouts(harbour)[0]


def move(harbour: Harbour, verb: str) -> dict[str, Any]:
    path = f"/v1/projects/shop/rollouts/web/{verb}"
    *_, last = harbour.client.stream("POST", path, {}).events()
    return last


def plan_is_empty(harbour: Harbour, project: dict[str, Any]) -> bool:
    body = {"project": project, "options": {}}
    plan: dict[str, Any] = harbour.client.post("/v1/projects/shop/plan", body)
    return plan["empty"] is True


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_start_first_rollout_loses_no_request(harbour: Harbour, replicas: int) -> None:
    harbour.up(stack("one", replicas=replicas, order="start-first"))
    after = stack("two", replicas=replicas, order="start-first")
    with visitors(harbour.netns, PORT) as told:
        harbour.up(after)
    assert told["lost"] == []
    assert set(told["seen"]) == {"one", "two"}
    assert sorted(harbour.containers()) == [f"shop-web-{n + 1}" for n in range(replicas)]
    assert rollout(harbour)["state"] == "completed"
    assert plan_is_empty(harbour, after)


def test_a_rollout_that_fails_goes_back_and_loses_no_request(harbour: Harbour) -> None:
    settings: dict[str, Any] = {"order": "start-first", "failure_action": "rollback"}
    harbour.up(stack("one", replicas=2, **settings))
    before = {c["id"] for c in harbour.containers().values()}
    with visitors(harbour.netns, PORT) as told:
        bad = stack("two", ready=False, replicas=2, **settings)
        result = harbour.result("up", project=bad, options={"wait": True})
    assert not result["ok"]
    assert result["error"]["type"] == "RolledBack"
    assert "unhealthy" in result["error"]["message"]
    assert "no" in result["error"]["output_tail"]
    assert told["lost"] == []
    assert set(told["seen"]) == {"one"}
    assert {c["id"] for c in harbour.containers().values()} == before
    assert rollout(harbour)["state"] == "rolled_back"


def test_stop_first_gives_the_old_replica_back_when_the_new_one_fails(harbour: Harbour) -> None:
    harbour.up(stack("one", parallelism=1))
    before = {c["id"] for c in harbour.containers().values()}
    bad = stack("two", ready=False, parallelism=1)
    result = harbour.result("up", project=bad, options={"wait": True})
    assert not result["ok"]
    containers = harbour.containers()
    assert {c["id"] for c in containers.values()} == before
    assert containers["shop-web-1"]["state"] == "running"
    assert rollout(harbour)["state"] == "paused"
    with visitors(harbour.netns, PORT) as told:
        time.sleep(0.2)
    assert set(told["seen"]) == {"one"} and told["lost"] == []


def test_a_rollout_is_undone_and_taken_on(harbour: Harbour) -> None:
    harbour.up(stack("one", order="start-first"))
    harbour.up(stack("two", order="start-first"))
    with visitors(harbour.netns, PORT) as told:
        assert move(harbour, "undo")["ok"]
        time.sleep(0.2)
    assert told["lost"] == []
    assert set(told["seen"]) == {"two", "one"}
    states = [r["state"] for r in rollouts(harbour)]
    assert states[0] == "completed"


def test_canaries_wait_for_a_word(harbour: Harbour) -> None:
    canary = {"replicas": 1, "promote": "manual"}
    harbour.up(stack("one", replicas=3, canary=canary))
    after = stack("two", replicas=3, canary=canary)
    harbour.up(after)
    assert rollout(harbour)["state"] == "paused"
    with visitors(harbour.netns, PORT) as told:
        time.sleep(0.5)
    assert set(told["seen"]) == {"one", "two"}
    assert plan_is_empty(harbour, after)
    assert move(harbour, "resume")["ok"]
    with visitors(harbour.netns, PORT) as told:
        time.sleep(0.5)
    assert set(told["seen"]) == {"two"} and told["lost"] == []
    assert rollout(harbour)["state"] == "completed"
    assert sorted(harbour.containers()) == ["shop-web-1", "shop-web-2", "shop-web-3"]


def paused_stack(text: str, harbour: Harbour, **settings: Any) -> dict[str, Any]:
    """The stack with containers that are healthy once the file `go` is there, told by a bind."""
    gates = harbour.root.parent / "gates"
    gates.mkdir(exist_ok=True)
    project = stack(text, **settings)
    project["services"]["web"] |= {
        "volumes": [{"type": "bind", "source": str(gates), "target": "/gates", "read_only": True}],
        "healthcheck": {**CHECK, "test": ["CMD", "test", "-f", f"/gates/{text}"], "retries": 1000},
    }
    return project


def open_gate(harbour: Harbour, text: str) -> None:
    (harbour.root.parent / "gates" / text).touch()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


def test_a_pause_lets_no_traffic_be_switched_within_a_batch(harbour: Harbour) -> None:
    settings: dict[str, Any] = {"order": "start-first", "replicas": 2, "parallelism": 2}
    before = paused_stack("one", harbour, **settings)
    open_gate(harbour, "one")
    harbour.up(before)
    ids = {c["id"] for c in harbour.containers().values()}
    after = paused_stack("two", harbour, **settings)
    with ThreadPoolExecutor() as pool:
        run = pool.submit(harbour.result, "up", project=after, options={"wait": True})
        wait_for(lambda: sum(n.endswith("-next") for n in harbour.containers()) == 2)
        harbour.client.post("/v1/projects/shop/rollouts/web/pause")
        open_gate(harbour, "two")
        ended = run.result()
    assert ended["error"]["type"] == "RolloutPaused"
    assert "bay rollout resume web" in ended["error"]["hint"]
    standing = harbour.containers()
    assert ids == {c["id"] for name, c in standing.items() if not name.endswith("-next")}
    assert {c["state"] for c in standing.values()} == {"running"} and len(standing) == 4
    with visitors(harbour.netns, PORT) as told:
        time.sleep(0.2)
        assert move(harbour, "resume")["ok"]
        time.sleep(0.2)
    assert set(told["seen"]) == {"one", "two"} and told["lost"] == []
    assert rollout(harbour)["state"] == "completed"
    beside = {c["id"] for name, c in standing.items() if name.endswith("-next")}
    assert {c["id"] for c in harbour.containers().values()} == beside
    assert plan_is_empty(harbour, after)


def test_a_pause_ends_the_delay_between_two_batches_and_an_undo_goes_back(harbour: Harbour) -> None:
    settings: dict[str, Any] = {"order": "start-first", "delay": 100 * 10**9, "replicas": 2}
    harbour.up(stack("one", **settings))
    after = stack("two", **settings)
    with ThreadPoolExecutor() as pool:
        run = pool.submit(harbour.result, "up", project=after, options={"wait": True})
        wait_for(lambda: "go on with rollout web" in str(rollouts(harbour)))
        harbour.client.post("/v1/projects/shop/rollouts/web/pause")
        ended = run.result()
    assert ended["error"]["type"] == "RolloutPaused"
    assert rollout(harbour)["state"] == "paused"
    with visitors(harbour.netns, PORT) as told:
        time.sleep(0.3)
    assert set(told["seen"]) == {"one", "two"}
    assert move(harbour, "undo")["ok"]
    assert rollout(harbour)["state"] == "rolled_back"


def test_a_resume_before_a_pause_has_come_into_force_lets_it_simply_go_on(
    harbour: Harbour,
) -> None:
    settings: dict[str, Any] = {"order": "start-first"}
    before = paused_stack("one", harbour, **settings)
    open_gate(harbour, "one")
    harbour.up(before)
    after = paused_stack("two", harbour, **settings)
    with ThreadPoolExecutor() as pool:
        run = pool.submit(harbour.result, "up", project=after, options={"wait": True})
        wait_for(lambda: any(n.endswith("-next") for n in harbour.containers()))
        harbour.client.post("/v1/projects/shop/rollouts/web/pause")
        resumed = pool.submit(move, harbour, "resume")
        wait_for(lambda: rollout(harbour)["state"] == "running")
        open_gate(harbour, "two")
        assert run.result()["ok"] and resumed.result()["ok"]
    assert rollout(harbour)["state"] == "completed"


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("count", [1, 3, 5, 7, 9])
def test_a_rollout_that_is_killed_goes_on_by_itself(
    harbour: Harbour, order: str, count: int
) -> None:
    harbour.up(stack("one", replicas=2, order=order))
    after = stack("two", replicas=2, order=order)
    done = 0

    def killed(event: dict[str, Any]) -> bool:
        nonlocal done
        done += int(event["type"] == "step" and event["status"] == "done")
        return done == count

    harbour.kill_when(after, killed)
    harbour.start()
    deadline = time.monotonic() + 60
    while rollout(harbour)["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert rollout(harbour)["state"] == "completed"
    assert sorted(harbour.containers()) == ["shop-web-1", "shop-web-2"]
    assert plan_is_empty(harbour, after)


REQUESTS = int(os.environ.get("BAYPLAN_REQUESTS", "5000"))


@pytest.mark.skipif(shutil.which("ab") is None, reason="ab is not installed (apache2-utils)")
def test_no_request_of_a_load_is_lost_by_good_and_bad_rollouts(harbour: Harbour) -> None:
    """`BAYPLAN_REQUESTS` says how many requests are made."""
    settings: dict[str, Any] = {"order": "start-first", "failure_action": "rollback"}
    harbour.up(stack("one", replicas=2, **settings))
    load = subprocess.Popen(
        [
            *("nsenter", f"--net=/run/netns/{harbour.netns}", "ab", "-q", "-r", "-c", "8"),
            *("-n", str(REQUESTS), f"http://127.0.0.1:{PORT}/"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        rolled = 0
        while load.poll() is None:
            text = ("two", "one")[rolled % 2]
            if rolled % 3 == 2:
                bad = stack("bad", ready=False, replicas=2, **settings)
                assert not harbour.result("up", project=bad, options={"wait": True})["ok"]
            else:
                harbour.up(stack(text, replicas=2, **settings))
            rolled += 1
        out, _ = load.communicate(timeout=60)
    finally:
        load.kill()
        load.communicate()
    assert rolled
    told = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
    assert told["Complete requests"].strip() == str(REQUESTS), out
    assert told["Failed requests"].strip() == "0", out
    assert "Non-2xx responses" not in told, out
