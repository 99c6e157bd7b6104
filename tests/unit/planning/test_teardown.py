"""What `down`, `stop`, `start`, `restart` and `kill` plan, and what a failed `up` takes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.engine.simulated import Behaviour, SimulatedFault
from orchestrator.planning import lifecycle
from orchestrator.planning.errors import UnknownService
from orchestrator.planning.undo import undo
from specs.project import Project

Stack = Callable[..., Project]
MakeWorld = Callable[..., Any]

NOW = 0.0


def lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


@pytest.fixture
def shop(stack: Stack) -> Project:
    return stack(
        {
            "web": {"depends_on": {"db": {"condition": "service_healthy"}}},
            "db": {
                "healthcheck": {"test": ["CMD", "true"]},
                "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
            },
        },
        volumes={"data": {"name": "shop_data"}},
    )


def test_down_stops_dependents_first_and_keeps_volumes(shop: Project, world: MakeWorld) -> None:
    host = world(db=Behaviour(health="healthy"))
    host.up(shop)
    plan = host.down(shop)
    assert plan.text() == lines("""
        #1 stop container shop-web-1: the project goes down
        #2 remove container shop-web-1 (after #1): the project goes down
        #3 stop container shop-db-1 (once ended #1): the project goes down
        #4 remove container shop-db-1 (after #3): the project goes down
        #5 remove network shop_default (after #2, #4): the project goes down
    """)
    assert not plan.destructive
    assert host.execute(plan).ok
    assert (host.backend.containers, host.backend.networks) == ({}, {})
    assert list(host.backend.volumes) == ["shop_data"]


def test_down_with_volumes_is_destructive(shop: Project, world: MakeWorld) -> None:
    host = world(db=Behaviour(health="healthy"))
    host.up(shop)
    plan = host.down(shop, volumes=True)
    assert plan.destructive
    assert host.execute(plan).ok
    assert host.backend.volumes == {}


def test_down_of_nothing_is_empty(shop: Project, world: MakeWorld) -> None:
    assert world().down(shop).empty


def test_down_leaves_a_network_that_orphans_use(stack: Stack, world: MakeWorld) -> None:
    host = world()
    host.up(stack({"web": {}, "old": {}}))
    plan = host.down(stack({"web": {}}))
    assert {step.action.name for step in plan.steps} == {"shop-web-1"}
    assert "network shop_default stays, as it is in use by shop-old-1" in plan.notes


def test_stop_and_start_follow_the_dependencies(shop: Project, world: MakeWorld) -> None:
    host = world(db=Behaviour(health="healthy"))
    host.up(shop)
    plan = lifecycle.stop("shop", host.observe(shop), (), None)
    assert plan.text() == lines("""
        #1 stop container shop-web-1: asked for
        #2 stop container shop-db-1 (once ended #1): asked for
    """)
    assert host.execute(plan).ok
    plan = lifecycle.start("shop", host.observe(shop), ())
    assert plan.text() == lines("""
        #1 start container shop-db-1: asked for
        #2 wait for container shop-db-1 to be healthy (after #1): a dependent needs service_healthy
        #3 start container shop-web-1 (after #2): asked for
    """)


def test_restart_of_one_service_leaves_the_others(shop: Project, world: MakeWorld) -> None:
    host = world(db=Behaviour(health="healthy"))
    host.up(shop)
    assert lifecycle.restart("shop", host.observe(shop), ("db",), 3).text() == lines("""
        #1 stop container shop-db-1: asked for
        #2 start container shop-db-1 (after #1): asked for
    """)


def test_a_restart_takes_along_what_shares_a_namespace_and_what_asks_for_it(
    stack: Stack, world: MakeWorld
) -> None:
    restart = {"condition": "service_started", "restart": True, "required": True}
    project = stack(
        {
            "app": {},
            "proxy": {"network_mode": "service:app", "depends_on": {"app": restart}},
            "cron": {"depends_on": {"proxy": restart}},
            "off": {"depends_on": {"app": restart}},
            "web": {"depends_on": {"app": {**restart, "restart": False}}},
        }
    )
    host = world()
    host.up(project)
    assert host.execute(lifecycle.stop("shop", host.observe(project), ("off",), None)).ok

    plan = lifecycle.restart("shop", host.observe(project), ("app",), None)
    assert plan.text() == lines("""
        #1 stop container shop-cron-1: asked for
        #2 stop container shop-proxy-1 (once ended #1): asked for
        #3 stop container shop-app-1 (once ended #2): asked for
        #4 start container shop-app-1 (after #3): asked for
        #5 start container shop-proxy-1 (after #2, #4): asked for
        #6 start container shop-cron-1 (after #1, #5): asked for
    """)
    alone = lifecycle.restart("shop", host.observe(project), ("app",), None, dependents=False)
    assert {step.action.name for step in alone.steps} == {"shop-app-1"}


def test_kill_reaches_only_what_runs(shop: Project, world: MakeWorld) -> None:
    host = world(db=Behaviour(exit_code=1))
    host.execute(host.plan(shop))
    plan = lifecycle.kill("shop", host.observe(shop), (), "SIGHUP")
    assert plan.empty


def test_stopping_an_unknown_service_is_an_error(shop: Project, world: MakeWorld) -> None:
    host = world()
    with pytest.raises(UnknownService, match="no such service: wbe"):
        lifecycle.stop("shop", host.observe(shop), ("wbe",), None)


def test_a_failed_first_up_takes_back_what_never_ran(shop: Project, world: MakeWorld) -> None:
    host = world(db=Behaviour(health="healthy"))
    host.backend.before = lambda action: SimulatedFault("no") if action.verb == "start" else None
    plan = host.plan(shop)
    outcome = host.execute(plan)
    assert not outcome.ok
    reverse = undo(plan, outcome.statuses, host.observe(shop), NOW)
    assert host.execute(reverse).ok
    assert (host.backend.containers, host.backend.networks, host.backend.volumes) == ({}, {}, {})


def test_a_failed_up_keeps_what_runs_and_what_was_there(shop: Project, world: MakeWorld) -> None:
    host = world(db=Behaviour(health="healthy"))
    host.backend.before = lambda action: (
        SimulatedFault("no") if action.text() == "start container shop-web-1" else None
    )
    plan = host.plan(shop)
    reverse = undo(plan, host.execute(plan).statuses, host.observe(shop), NOW)
    assert reverse.text() == (
        "#1 remove container shop-web-1: made by a run that failed before it was used"
    )
