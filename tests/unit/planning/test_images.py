"""When an image is pulled, by the service's policy and the run's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from orchestrator.planning.actions import PullImage
from orchestrator.planning.images import refresh_age
from orchestrator.planning.policy import Policy, Pull
from orchestrator.planning.reconcile import reconcile
from specs.project import Project
from tests.unit.planning.conftest import NOW, World

Stack = Callable[..., Project]
Worlds = Callable[..., World]


@pytest.mark.parametrize(
    ("policy", "pulled_before", "run", "pulls"),
    [
        ("", None, "missing", False),
        ("missing", None, "missing", False),
        ("always", 1.0, "missing", True),
        ("always", 1.0, "never", False),
        ("never", None, "always", True),
        ("daily", None, "missing", True),
        ("daily", 3600.0, "missing", False),
        ("daily", 90_000.0, "missing", True),
        ("weekly", 90_000.0, "missing", False),
        ("every_2h", 7100.0, "missing", False),
        ("every_2h", 7300.0, "missing", True),
        ("every_2h", 7300.0, "never", False),
    ],
)
def test_an_image_that_is_there_is_pulled_again_when_its_policy_says_so(
    stack: Stack, world: Worlds, policy: str, pulled_before: float | None, run: Pull, pulls: bool
) -> None:
    project = stack({"web": {"pull_policy": policy}})
    observed = world().observe(project)
    if pulled_before is not None:
        observed = dataclasses.replace(observed, pulled={"app": NOW - pulled_before})
    plan = reconcile(project, observed, Policy(pull=run), NOW)
    assert any(isinstance(step.action, PullImage) for step in plan.steps) is pulls


def test_a_missing_image_is_not_fetched_against_the_policy(stack: Stack, world: Worlds) -> None:
    project = stack({"web": {"image": "other", "pull_policy": "never"}})
    action = world().plan(project).steps[0].action
    assert isinstance(action, PullImage) and not action.allowed


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [("daily", 86_400), ("weekly", 604_800), ("every_1d12h", 129_600), ("every_90s", 90)],
)
def test_periods_are_read_as_compose_writes_them(policy: str, seconds: float) -> None:
    assert refresh_age(policy) == seconds
