"""When an image is pulled, by the service's policy and the run's."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.planning.actions import (
    BuildImage,
    Cause,
    ContainerAction,
    CreateContainer,
    PullImage,
)
from orchestrator.planning.builds import plan_builds
from orchestrator.planning.errors import DependencyCycle, PlanningError, UnknownService
from orchestrator.planning.images import refresh_age, same_platform
from orchestrator.planning.policy import Pin, Policy, Pull
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


@pytest.mark.parametrize(("after", "pulls"), [("", True), ("2h", False), ("30m", True)])
def test_a_refresh_has_the_age_that_is_given_beside_it(
    stack: Stack, world: Worlds, after: str, pulls: bool
) -> None:
    project = stack({"web": {"pull_policy": "refresh", "pull_refresh_after": after}})
    observed = dataclasses.replace(world().observe(project), pulled={"app": NOW - 3600.0})
    plan = reconcile(project, observed, Policy(), NOW)
    assert any(isinstance(step.action, PullImage) for step in plan.steps) is pulls


def test_an_age_that_is_none_is_refused(stack: Stack, world: Worlds) -> None:
    project = stack({"web": {"pull_policy": "refresh", "pull_refresh_after": "soon"}})
    observed = dataclasses.replace(world().observe(project), pulled={"app": NOW})
    with pytest.raises(PlanningError, match="soon is not an age"):
        reconcile(project, observed, Policy(), NOW)


def test_what_builds_take_files_from_is_built_before(stack: Stack, world: Worlds) -> None:
    project = stack(
        {
            "a": {"image": "a:1", "build": _taking("z")},
            "z": {"image": "z:1", "build": _taking("m")},
            "m": {"image": "m:1", "build": {"context": "/m"}},
            "other": {"image": "other:1", "build": {"context": "/other"}},
        }
    )
    everything = {"a": ("m:1", "z:1", "a:1"), "z": ("m:1", "z:1"), "other": ("other:1",)}
    for chosen, names in everything.items():
        plan = world().plan(project, services=(chosen,), build="always")
        builds = [step for step in plan.steps if isinstance(step.action, BuildImage)]
        assert tuple(step.action.name for step in builds) == names
        for earlier, later in itertools.pairwise(builds):
            assert earlier.id in later.after
        asked = plan_builds(project, (chosen,), _model(project))
        assert tuple(step.action.name for step in asked.steps) == names


def test_builds_that_take_files_from_each_other_are_refused(stack: Stack, world: Worlds) -> None:
    project = stack(
        {
            "a": {"image": "a:1", "build": _taking("b")},
            "b": {"image": "b:1", "build": _taking("a")},
        }
    )
    with pytest.raises(DependencyCycle):
        world().plan(project, build="always")
    with pytest.raises(DependencyCycle):
        plan_builds(project, (), _model(project))
    with pytest.raises(UnknownService):
        plan_builds(project, ("c",), _model(project))


def _mounting(source: str) -> list[dict[str, str]]:
    return [{"type": "image", "source": source, "target": "/m"}]


def test_a_mounted_image_is_there_before_what_mounts_it(stack: Stack, world: Worlds) -> None:
    project = stack(
        {
            "web": {"volumes": _mounting("other"), "pre_start": [{"command": ["true"]}]},
            "tool": {"volumes": _mounting("made")},
            "made": {"image": "made:1", "build": {"context": "/made"}},
        }
    )
    for chosen, image, kind in (("web", "other", PullImage), ("tool", "made:1", BuildImage)):
        plan = world().plan(project, services=(chosen,))
        (fetched,) = [step for step in plan.steps if step.action.kind == "image"]
        assert (fetched.action.name, type(fetched.action)) == (image, kind)
        for step in plan.steps:
            if isinstance(step.action, CreateContainer):
                assert fetched.id in step.after


def test_what_mounts_an_image_is_replaced_when_the_image_is_another(
    stack: Stack, world: Worlds
) -> None:
    project = stack({"web": {"volumes": _mounting("other")}, "alone": {}})
    here = world()
    here.up(project)
    assert here.plan(project).empty
    here.backend.images["other"] = "sha256:" + "b2" * 32
    plan = here.up(project)
    assert {
        step.action.service for step in plan.steps if isinstance(step.action, ContainerAction)
    } == {"web"}
    assert "image /m content" in plan.text()
    assert here.plan(project).empty

    del here.backend.images["other"]
    plan = here.up(project)
    assert "not there yet" in plan.text()
    assert here.plan(project).empty


def test_pinned_images_are_mounted_whatever_their_references_stand_for(
    stack: Stack, world: Worlds
) -> None:
    project = stack({"web": {"volumes": _mounting("other")}, "alone": {}})
    old, new = ("sha256:" + letter * 64 for letter in "ab")
    here = world(images={"app": "sha256:a1", "other": new, old: old, "sha256:a1": "sha256:a1"})
    here.up(project)
    pins = {"web": Pin(image="sha256:a1", mounted={"/m": old})}
    del here.backend.images["other"]

    plan = here.up(project, pins=pins)

    (made,) = [step.action for step in plan.steps if isinstance(step.action, CreateContainer)]
    assert (made.service, made.mounted) == ("web", {"/m": old})
    assert not any(isinstance(step.action, PullImage) for step in plan.steps)
    (web,) = here.observe(project).of_service("web")
    assert web.spec["contents"]["image /m"] == old
    assert here.plan(project, pins=pins).empty


def test_an_image_is_pulled_for_the_platform_that_its_service_names(
    stack: Stack, world: Worlds
) -> None:
    project = stack({"a": {"platform": "linux/arm64"}, "b": {"image": "other"}})
    here = world(images={"app": "sha256:a1", "other": "sha256:b1"})

    def pulls(platforms: dict[str, str], **policy: Any) -> dict[str, str]:
        observed = dataclasses.replace(here.observe(project), platforms=platforms)
        plan = reconcile(project, observed, Policy(**policy), NOW)
        actions = [step.action for step in plan.steps if isinstance(step.action, PullImage)]
        return {action.name: action.platform for action in actions}

    ours = {"app": "linux/amd64", "other": "linux/amd64"}
    assert pulls(ours) == {"app": "linux/arm64"}
    assert pulls({**ours, "app": "linux/arm64/v8"}) == {}
    default = {"DOCKER_DEFAULT_PLATFORM": "linux/386"}
    assert pulls(ours, environ=default) == {"app": "linux/arm64", "other": "linux/386"}
    assert pulls(ours, pull="always") == {"app": "linux/arm64", "other": ""}


def test_one_reference_cannot_be_had_for_two_platforms(stack: Stack, world: Worlds) -> None:
    project = stack({"a": {"platform": "linux/arm64"}, "b": {"platform": "linux/amd64"}})
    with pytest.raises(PlanningError, match="app is wanted for linux/arm64 and for linux/amd64"):
        world().plan(project)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("linux/arm64", "arm64", True),
        ("linux/arm64/v8", "linux/aarch64", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/amd64", "windows/amd64", False),
        ("", "", True),
        ("", "linux/amd64", False),
    ],
)
def test_platforms_mean_the_same_however_they_are_written(one: str, other: str, same: bool) -> None:
    assert same_platform(one, other) is same_platform(other, one) is same


def _taking(service: str) -> dict[str, object]:
    return {"context": "/", "additional_contexts": {"it": f"service:{service}"}}


def _model(project: Project) -> BuildImage:
    return BuildImage(name="", cause=Cause(reason="asked for"), service="", project=project)
