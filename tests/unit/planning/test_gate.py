"""How a project proves itself, and what counts as a change by somebody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.engine.simulated import Behaviour
from orchestrator.planning.actions import WaitContainer
from orchestrator.planning.gate import deviates, health_gate
from orchestrator.planning.policy import Policy
from orchestrator.planning.reconcile import reconcile
from specs.project import Project

Stack = Callable[..., Project]
MakeWorld = Callable[..., Any]


def judge(host: Any, project: Project) -> bool:
    observed = host.observe(project)
    return deviates(reconcile(project, observed, Policy(refresh=False), 0.0), observed)


def test_every_service_has_to_last_but_one_that_came_back_long_ago_only_has_to_run(
    stack: Stack, world: MakeWorld
) -> None:
    host = world()
    project = stack({"web": {}, "db": {}, "other": {}})
    host.up(project)
    observed = host.observe(project)
    plan = health_gate("shop", ("web", "db"), observed, {"shop-db-1"}, 1.0, 60.0)
    waits = {s.action.name: s.action for s in plan.steps if isinstance(s.action, WaitContainer)}
    assert {name: wait.condition for name, wait in waits.items()} == {
        "shop-db-1": "ready",
        "shop-web-1": "stable",
    }
    assert all((wait.monitor, wait.timeout) == (1.0, 60.0) for wait in waits.values())


def test_what_is_as_it_was_applied_is_no_deviation(stack: Stack, world: MakeWorld) -> None:
    host = world()
    project = stack({"web": {}})
    assert judge(host, project)
    host.up(project)
    assert not judge(host, project)
    assert judge(host, stack({"web": {"environment": {"COLOUR": "red"}}}))


def test_what_ended_by_itself_is_left_to_its_restart_policy(stack: Stack, world: MakeWorld) -> None:
    host = world(job=Behaviour(exit_code=3))
    project = stack({"web": {}, "job": {}})
    host.up(project)
    assert not host.plan(project).empty
    assert not judge(host, project)
