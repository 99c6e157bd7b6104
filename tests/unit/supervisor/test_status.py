"""Sync and health are judged apart."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.engine.records import ContainerRecord
from orchestrator.planning.actions import Cause, StopContainer, WaitContainer
from orchestrator.planning.observed import Observed, ObservedContainer
from orchestrator.planning.plan import PlanBuilder
from orchestrator.supervisor.status import (
    Comparison,
    Health,
    exit_reason,
    health_of,
    project_status,
    service_health,
)


def container(**changes: Any) -> ObservedContainer:
    given: dict[str, Any] = {
        "id": "c1",
        "name": "shop-web-1",
        "service": "web",
        "number": 1,
        "status": "running",
        "spec": {"service": {}, "networks": {}, "volumes": {}},
        "image_id": "sha256:1",
        **changes,
    }
    return ObservedContainer(**given)


@pytest.mark.parametrize(
    ("changes", "health"),
    [
        ({}, Health.HEALTHY),
        ({"health": "healthy"}, Health.HEALTHY),
        ({"health": "starting"}, Health.PROGRESSING),
        ({"health": "unhealthy"}, Health.DEGRADED),
        ({"status": "restarting"}, Health.DEGRADED),
        ({"status": "paused"}, Health.SUSPENDED),
        ({"status": "exited", "exit_code": 1}, Health.DEGRADED),
        ({"status": "exited", "exit_code": 0}, Health.HEALTHY),
        ({"status": "exited", "exit_code": 0, "intent": "stopped"}, Health.SUSPENDED),
        ({"status": "created", "lost": True}, Health.MISSING),
    ],
)
def test_a_container_has_the_health_of_its_state(changes: dict[str, Any], health: Health) -> None:
    assert health_of(container(**changes)) is health


def test_a_service_is_as_well_as_its_worst_replica() -> None:
    assert service_health([container(), container(health="starting")], 2) is Health.PROGRESSING
    assert service_health([container()], 2) is Health.DEGRADED
    assert service_health([], 1) is Health.MISSING
    assert service_health([], 0) is Health.HEALTHY


def test_what_a_plan_would_do_is_out_of_sync_and_waiting_is_not() -> None:
    builder = PlanBuilder("shop")
    cause = Cause(reason="too many")
    builder.add(StopContainer(name="shop-web-2", service="web", cause=cause))
    builder.add(WaitContainer(name="shop-db-1", service="db", cause=cause, condition="healthy"))
    comparison = Comparison.of(builder.build())
    status = project_status(
        name="shop",
        spec={"services": {"web": {}, "db": {}}},
        observed=Observed(containers=(container(),)),
        records=(),
        comparison=comparison,
    )
    shown = {
        service["name"]: (service["sync"], service["health"]) for service in status["services"]
    }
    assert shown == {"web": ("OutOfSync", "Healthy"), "db": ("Synced", "Missing")}
    assert (status["sync"], status["health"]) == ("OutOfSync", "Missing")
    assert status["services"][1]["differences"][0]["cause"] == "too many"


def test_an_exit_has_a_reason() -> None:
    def ended(code: int, error: str = "") -> str:
        return exit_reason(
            ContainerRecord(
                id="c",
                name="n",
                project="p",
                service="s",
                number=1,
                source=(),
                spec={},
                image="i",
                image_id="",
                created_at=0.0,
                exit_code=code,
                error=error,
            )
        )

    assert ended(0) == "completed"
    assert ended(137) == "ended by signal 9"
    assert ended(3) == "failed with 3"
    assert ended(137, "out of memory") == "out of memory"
