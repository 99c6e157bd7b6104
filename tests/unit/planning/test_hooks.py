"""Hooks as steps: before a stop, after a start, and containers of their own before all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.engine.simulated import SimulatedFault
from orchestrator.planning import lifecycle
from orchestrator.planning.actions import CreateContainer
from orchestrator.planning.plan import Plan
from specs.project import Project
from tests.unit.planning.conftest import World

Stack = Callable[..., Project]
Worlds = Callable[..., World]

HOOKS: dict[str, Any] = {
    "post_start": [{"command": ["warm"]}, {"command": ["tell"]}],
    "pre_stop": [{"command": ["leave"]}],
}


def texts(plan: Plan) -> list[str]:
    return [step.text().split(":")[0] for step in plan.steps]


def test_what_waits_for_a_start_waits_for_its_hooks(stack: Stack, world: Worlds) -> None:
    project = stack({"db": HOOKS, "web": {"depends_on": {"db": {"condition": "service_started"}}}})
    assert texts(world().plan(project))[1:] == [
        "#2 create container shop-db-1 (after #1)",
        "#3 start container shop-db-1 (after #2)",
        "#4 run post_start hook 1 in container shop-db-1 (after #3)",
        "#5 run post_start hook 2 in container shop-db-1 (after #4)",
        "#6 create container shop-web-1 (after #1)",
        "#7 start container shop-web-1 (after #5, #6)",
    ]


def test_hooks_that_an_earlier_run_did_not_come_to_are_run_by_the_next(
    stack: Stack, world: Worlds
) -> None:
    project = stack({"db": HOOKS, "web": {"depends_on": {"db": {"condition": "service_started"}}}})
    host = world()
    host.backend.before = lambda action: (
        SimulatedFault("cut short") if action.verb == "run hook in" else None
    )
    assert not host.execute(host.plan(project)).ok
    host.backend.before = None
    plan = host.plan(project)
    assert texts(plan) == [
        "#1 run post_start hook 1 in container shop-db-1",
        "#2 run post_start hook 2 in container shop-db-1 (after #1)",
        "#3 start container shop-web-1 (after #2)",
    ]
    assert plan.steps[0].text().endswith("was started, and its hooks have not all succeeded")
    assert host.execute(plan).ok
    assert host.plan(project).empty


def test_a_stop_waits_for_its_hooks_and_comes_even_if_they_fail(
    stack: Stack, world: Worlds
) -> None:
    project = stack({"db": HOOKS})
    host = world()
    host.up(project)
    assert texts(host.down(project)) == [
        "#1 run pre_stop hook 1 in container shop-db-1",
        "#2 stop container shop-db-1 (once ended #1)",
        "#3 remove container shop-db-1 (after #2)",
        "#4 remove network shop_default (after #3)",
    ]
    restart = lifecycle.restart("shop", host.observe(project), (), None)
    assert [step.action.verb for step in restart.steps] == [
        "run hook in",
        "stop",
        "start",
        "run hook in",
        "run hook in",
    ]


def test_a_start_that_is_due_by_policy_runs_no_hooks(stack: Stack, world: Worlds) -> None:
    project = stack({"db": HOOKS})
    host = world()
    host.up(project)
    plan = lifecycle.resume("shop", host.observe(project), {"shop-db-1"})
    assert [step.action.verb for step in plan.steps] == ["start"]


def test_a_replacement_stops_by_the_old_hooks_and_starts_by_the_new(
    stack: Stack, world: Worlds
) -> None:
    host = world()
    host.up(stack({"db": {"pre_stop": [{"command": ["old"]}], "environment": {"A": "1"}}}))
    plan = host.plan(stack({"db": {"post_start": [{"command": ["new"]}], "environment": {}}}))
    assert texts(plan) == [
        "#1 run pre_stop hook 1 in container shop-db-1",
        "#2 stop container shop-db-1 (once ended #1)",
        "#3 remove container shop-db-1 (after #2)",
        "#4 create container shop-db-1 (after #3)",
        "#5 start container shop-db-1 (after #4)",
        "#6 run post_start hook 1 in container shop-db-1 (after #5)",
    ]


def test_init_containers_run_once_before_all_replicas(stack: Stack, world: Worlds) -> None:
    def project(scale: int, mode: str) -> Project:
        return stack(
            {
                "web": {
                    "scale": scale,
                    "environment": {"MODE": mode},
                    "user": "app",
                    "restart": "always",
                    "ports": [{"target": 80, "published": "80", "protocol": "tcp"}],
                    "pre_start": [
                        {"command": ["migrate"], "environment": {"MODE": "init"}},
                        {"command": ["seed"], "image": "tools", "user": "root"},
                    ],
                }
            }
        )

    host = world(images={"app": "sha256:a1", "tools": "sha256:a2"})
    plan = host.up(project(2, "a"))
    first = [s.action for s in plan.steps if isinstance(s.action, CreateContainer)]
    assert [a.name for a in first] == [
        "shop-web-1",
        "shop-web-2",
        "shop-web-pre-start-1",
        "shop-web-pre-start-2",
    ]
    migrate, seed = (a.spec["service"] for a in first[2:])
    assert migrate["command"] == ["migrate"] and migrate["user"] == "app"
    assert migrate["environment"] == {"MODE": "init"}
    assert "ports" not in migrate and "restart" not in migrate
    assert (first[3].image, seed["user"]) == ("tools", "root")
    assert sorted(host.backend.containers) == ["shop-web-1", "shop-web-2"]
    assert host.plan(project(2, "a")).empty
    assert not any("pre-start" in text for text in texts(host.plan(project(3, "a"))))
    assert any("pre-start" in text for text in texts(host.plan(project(2, "b"))))
