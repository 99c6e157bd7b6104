"""Rollouts as plans: what comes after what, what is kept for the way back, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.engine.simulated import Behaviour
from orchestrator.planning.errors import PlanningError
from orchestrator.planning.plan import Plan
from orchestrator.planning.revert import revert
from orchestrator.planning.rollout import Strategy, strategy
from specs.project import Project
from tests.unit.planning.conftest import NOW, World

Stack = Callable[..., Project]
Worlds = Callable[..., World]


def texts(plan: Plan) -> list[str]:
    return [step.text().split(":")[0] for step in plan.steps]


def web(mode: str, *, scale: int = 1, canary: Any = None, **update: Any) -> dict[str, Any]:
    service: dict[str, Any] = {
        "environment": {"MODE": mode},
        "scale": scale,
        "ports": [{"target": 80, "published": "80", "protocol": "tcp", "mode": "ingress"}],
        "deploy": {"update_config": {"parallelism": 1, **update}},
    }
    if canary is not None:
        service["extensions"] = {"x-bayplan": {"canary": canary}}
    return service


def test_start_first_switches_once_the_new_replica_has_proved_itself(
    stack: Stack, world: Worlds
) -> None:
    host = world()
    host.up(stack({"web": web("a", order="start-first")}))
    plan = host.plan(stack({"web": web("b", order="start-first")}))
    assert texts(plan) == [
        "#1 create container shop-web-1-next",
        "#2 start container shop-web-1-next (after #1)",
        "#3 wait for container shop-web-1-next to be stable (after #2)",
        "#4 switch traffic to container shop-web-1-next as shop-web-1 (after #3)",
        "#5 drain container shop-web-1-old (after #4)",
        "#6 stop container shop-web-1-old (after #5)",
        "#7 remove container shop-web-1-old (after #6)",
    ]


def test_stop_first_is_the_default_and_keeps_the_old_replica_until_the_end(
    stack: Stack, world: Worlds
) -> None:
    host = world()
    host.up(stack({"web": web("a")}))
    assert texts(host.plan(stack({"web": web("b")}))) == [
        "#1 stop container shop-web-1",
        "#2 create container shop-web-1-next (after #1)",
        "#3 switch traffic to container shop-web-1-next as shop-web-1 (after #2)",
        "#4 start container shop-web-1 (after #3)",
        "#5 wait for container shop-web-1 to be stable (after #4)",
        "#6 remove container shop-web-1-old (after #5)",
    ]


def test_batches_follow_one_another_and_nothing_old_goes_before_all_have_passed(
    stack: Stack, world: Worlds
) -> None:
    host = world()
    host.up(stack({"web": web("a", scale=3)}))
    settings: dict[str, Any] = {"scale": 3, "parallelism": 2, "delay": 2_000_000_000}
    plan = host.plan(stack({"web": web("b", **settings)}))
    lines = texts(plan)
    assert "go on with rollout web after 2 s" in " ".join(lines)
    assert [line.split(" (")[0].split(" ", 1)[1] for line in lines[-3:]] == [
        "remove container shop-web-1-old",
        "remove container shop-web-2-old",
        "remove container shop-web-3-old",
    ]
    assert len({step.after for step in plan.steps[-3:]}) == 1
    host.execute(plan)
    assert host.plan(stack({"web": web("b", **settings)})).empty


def test_a_fixed_address_cannot_be_had_twice(stack: Stack, world: Worlds) -> None:
    def fixed(mode: str) -> dict[str, Any]:
        return {
            **web(mode, order="start-first"),
            "networks": {"default": {"ipv4_address": "10.0.0.9"}},
        }

    host = world()
    host.up(stack({"web": fixed("a")}))
    plan = host.plan(stack({"web": fixed("b")}))
    assert texts(plan)[0] == "#1 stop container shop-web-1"
    assert plan.notes == (
        "service web is rolled out stop-first, as its address on network default is fixed",
    )


def test_a_service_without_update_config_is_replaced_as_ever(stack: Stack, world: Worlds) -> None:
    host = world()
    host.up(stack({"web": {"environment": {"MODE": "a"}}}))
    plan = host.plan(stack({"web": {"environment": {"MODE": "b"}}}))
    assert [step.action.verb for step in plan.steps] == ["stop", "remove", "create", "start"]
    assert plan.rollouts == ()


def test_canaries_stand_beside_what_they_may_replace_unless_both_would_write() -> None:
    service = {"name": "web", "extensions": {"x-bayplan": {"canary": 2}}}
    found = strategy(service)
    assert found is not None
    assert (found.order, found.canary, found.failure_action) == ("start-first", 2, "rollback")
    writing = {**service, "volumes": [{"type": "volume", "source": "d", "target": "/d"}]}
    found = strategy(writing)
    assert found is not None and found.order == "stop-first"


@pytest.mark.parametrize("canary", ["two", -1, {"replicas": True}, {"promote": "never"}])
def test_a_canary_that_is_not_understood_is_refused(canary: Any) -> None:
    with pytest.raises(PlanningError, match="canary is not understood"):
        strategy({"name": "web", "extensions": {"x-bayplan": {"canary": canary}}})


def test_manual_canaries_leave_the_others_until_they_are_promoted(
    stack: Stack, world: Worlds
) -> None:
    canary = {"replicas": 1, "promote": "manual"}
    host = world()
    host.up(stack({"web": web("a", scale=3, canary=canary)}))
    after = stack({"web": web("b", scale=3, canary=canary)})
    plan = host.up(after)
    assert plan.rollouts[0].replicas == ("shop-web-1",) and plan.rollouts[0].held
    again = host.plan(after)
    assert again.empty and "bay rollout resume" in again.notes[0]
    host.up(after, promote=frozenset(("web",)))
    assert set(host.backend.containers) == {"shop-web-1", "shop-web-2", "shop-web-3"}
    assert host.plan(after).empty


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_a_rollout_is_taken_on_from_every_step(stack: Stack, world: Worlds, order: str) -> None:
    before = stack({"web": web("a", scale=2, order=order)})
    after = stack({"web": web("b", scale=2, order=order)})
    steps = 14
    for cut in range(steps):
        host = world(web=Behaviour(health="healthy"))
        host.up(before)
        count = 0

        def crash(action: object, cut: int = cut) -> Exception | None:
            nonlocal count
            count += 1
            return RuntimeError("killed") if count > cut else None

        host.backend.before = crash
        host.execute(host.plan(after))
        host.backend.before = None
        host.up(after)
        assert host.plan(after).empty, cut
        found = host.backend.containers
        assert sorted(found) == ["shop-web-1", "shop-web-2"]
        assert {c.spec["service"]["environment"]["MODE"] for c in found.values()} == {"b"}


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_a_rollout_is_taken_back_from_every_step(stack: Stack, world: Worlds, order: str) -> None:
    before = stack({"web": web("a", scale=2, order=order)})
    after = stack({"web": web("b", scale=2, order=order)})
    for cut in range(12):
        host = world(web=Behaviour(health="healthy"))
        host.up(before)
        ids = {c.id for c in host.backend.containers.values()}
        count = 0

        def crash(action: object, cut: int = cut) -> Exception | None:
            nonlocal count
            count += 1
            return RuntimeError("killed") if count > cut else None

        host.backend.before = crash
        host.execute(host.plan(after))
        host.backend.before = None
        way = Strategy(order=order)  # type: ignore[arg-type]  # one of its two words
        plan = revert("shop", "web", host.observe(before), way, "it failed", NOW)
        assert host.execute(plan).ok
        assert host.plan(before).empty, (cut, host.plan(before).text())
        assert {c.id for c in host.backend.containers.values()} == ids


def test_a_replica_that_fails_holds_the_others_back(stack: Stack, world: Worlds) -> None:
    host = world(web=Behaviour(health="healthy"))
    host.up(stack({"web": web("a", scale=3, order="start-first")}))
    host.backend.behaviours["web"] = Behaviour(health="unhealthy")
    outcome = host.execute(host.plan(stack({"web": web("b", scale=3, order="start-first")})))
    assert [f.step.action.name for f in outcome.failures] == ["shop-web-1-next"]
    modes = {
        n: c.spec["service"]["environment"]["MODE"] for n, c in host.backend.containers.items()
    }
    assert modes == {
        "shop-web-1": "a",
        "shop-web-1-next": "b",
        "shop-web-2": "a",
        "shop-web-3": "a",
    }


def test_continue_goes_on_after_a_failure(stack: Stack, world: Worlds) -> None:
    settings: dict[str, Any] = {
        "scale": 2,
        "order": "start-first",
        "failure_action": "continue",
    }
    host = world(web=Behaviour(health="unhealthy"))
    host.up(stack({"web": web("a", **settings)}))
    outcome = host.execute(host.plan(stack({"web": web("b", **settings)})))
    assert [f.step.action.name for f in outcome.failures] == [
        "shop-web-1-next",
        "shop-web-2-next",
    ]
