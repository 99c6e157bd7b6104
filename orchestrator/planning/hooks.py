"""Hooks: post_start and pre_stop as steps around starts and stops, pre_start as init containers.

Source: Compose Specification, lifecycle hooks. Hooks belong to what a person or a plan asks
for; a restart by policy runs none, as with Docker.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.planning.actions import (
    AnyAction,
    Cause,
    CreateContainer,
    PromoteContainer,
    RemoveContainer,
    RunHook,
    StartContainer,
    StopContainer,
    UpdateContainer,
    WaitContainer,
)
from orchestrator.planning.draft import Draft
from orchestrator.planning.observed import Observed, ObservedContainer, Spec
from orchestrator.planning.plan import Plan, Step

_NOT_OF_AN_INIT_CONTAINER = (
    "build",
    "container_name",
    "deploy",
    "healthcheck",
    "pre_start",
    "post_start",
    "pre_stop",
    "ports",
    "restart",
    "scale",
    "depends_on",
)


def with_hooks(plan: Plan, observed: Observed) -> Plan:
    """The plan with a step for each hook: after a start those of post_start, which whoever
    waits for the start waits for, too; before a stop those of pre_stop, which end it whether
    they succeed or not."""
    specs = {c.name: c.spec for c in observed.containers}
    steps: list[Step] = []
    numbers: dict[int, list[int]] = {}

    def add(action: AnyAction, after: Iterable[int], ordered: Iterable[int]) -> int:
        step = Step(
            id=len(steps) + 1,
            action=action,
            after=tuple(sorted(set(after))),
            ordered=tuple(sorted(set(ordered) - set(after))),
        )
        steps.append(step)
        return step.id

    for step in plan.steps:
        action = step.action
        # What waited for a step waits for the last of those that it has become.
        after = [numbers[id][-1] for id in step.after]
        ordered = [numbers[id][-1] for id in step.ordered]
        made: list[int] = []
        if isinstance(action, StopContainer):
            for hook in _hooks(specs, action, "pre_stop"):
                made.append(add(hook, after, [*ordered, *made[-1:]]))
            made.append(add(action, after, [*ordered, *made[-1:]]))
        else:
            made.append(add(action, after, ordered))
        if isinstance(action, StartContainer) and action.fresh:
            for hook in _hooks(specs, action, "post_start"):
                made.append(add(hook, made[-1:], ()))
        _follow(specs, action)
        numbers[step.id] = made
    rollouts = tuple(
        dataclasses.replace(
            rollout, steps=frozenset(new for old in rollout.steps for new in numbers[old])
        )
        for rollout in plan.rollouts
    )
    return dataclasses.replace(plan, steps=tuple(steps), rollouts=rollouts)


def due_hooks(container: ObservedContainer, spec: Spec) -> list[RunHook]:
    """The post_start hooks of a container that runs, where not all of them have succeeded since
    it was started: whoever started it was cut short, or one has failed. `spec` is the blueprint
    that has them."""
    if not (container.hooks_due and container.status == "running"):
        return []
    cause = Cause(reason="was started, and its hooks have not all succeeded")
    runs = _runs(spec["service"], container.name, container.service, "post_start", cause)
    return [dataclasses.replace(run, cause=cause) for run in runs]


def _hooks(
    specs: Mapping[str, Spec], action: StartContainer | StopContainer, phase: str
) -> list[RunHook]:
    service = (specs.get(action.name) or {}).get("service") or {}
    return _runs(service, action.name, action.service, phase, action.cause)


def _runs(
    attributes: Mapping[str, Any], name: str, service: str, phase: str, cause: Cause
) -> list[RunHook]:
    return [
        RunHook(
            name=name,
            service=service,
            cause=dataclasses.replace(cause, brief=f"{phase} hook {number}"),
            phase=phase,
            number=number,
            hook=hook,
        )
        for number, hook in enumerate(attributes.get(phase) or (), start=1)
    ]


def _follow(specs: dict[str, Spec], action: AnyAction) -> None:
    """Which container a name means after an action."""
    match action:
        case CreateContainer() | UpdateContainer():
            specs[action.name] = action.spec
        case PromoteContainer():
            if action.candidate in specs:
                if action.name in specs:
                    specs[action.aside] = specs.pop(action.name)
                specs[action.name] = specs.pop(action.candidate)
        case RemoveContainer():
            specs.pop(action.name, None)
        case _:
            pass


def init_images(service: Mapping[str, Any]) -> list[str]:
    """The images that init containers of a service bring along."""
    return [str(hook["image"]) for hook in service.get("pre_start") or () if hook.get("image")]


def plan_init(draft: Draft, service: str, after: Iterable[int], start_after: Iterable[int]) -> int:
    """Run the service's init containers one after the other, the first created after `after`
    and started after `start_after`; the result is the last step."""
    last: list[int] = list(after)
    gate = list(start_after)
    for number, hook in enumerate(draft.service(service).get("pre_start") or (), start=1):
        name = f"{_init_prefix(draft.project.name, service)}{number}"
        cause = Cause(reason=f"pre_start hook {number}")
        created = draft.builder.add(
            CreateContainer(
                name=name,
                service=service,
                cause=cause,
                project=draft.project,
                number=number,
                image=str(hook.get("image") or draft.image(service)),
                spec=_init_spec(draft.blueprints[service], hook),
                mounted=draft.mounted(service),
            ),
            after=[*last, *_needs(draft, service, hook)],
        )
        started = draft.builder.add(
            StartContainer(name=name, service=service, cause=cause), after=[created, *gate]
        )
        ended = draft.builder.add(
            WaitContainer(name=name, service=service, cause=cause, condition="completed"),
            after=[started],
        )
        last = [
            draft.builder.add(
                RemoveContainer(name=name, service=service, cause=cause, volumes=True),
                after=[ended],
            )
        ]
        gate = []
    return last[-1]


def _needs(draft: Draft, service: str, hook: Mapping[str, Any]) -> list[int]:
    spec = draft.blueprints[service]
    image = str(hook.get("image") or draft.image(service))
    return [
        *(
            draft.image_steps[reference]
            for reference in (image, *draft.mounted(service).values())
            if reference in draft.image_steps
        ),
        *(draft.network_steps[n] for n in spec["networks"].values() if n in draft.network_steps),
        *(draft.volume_steps[v] for v in spec["volumes"].values() if v in draft.volume_steps),
    ]


def is_init(container: ObservedContainer, project: str) -> bool:
    """Whether it is an init container, which an earlier run has left."""
    return container.oneoff and container.name.startswith(_init_prefix(project, container.service))


def _init_prefix(project: str, service: str) -> str:
    return f"{project}-{service}-pre-start-"


def _init_spec(blueprint: Spec, hook: Mapping[str, Any]) -> Spec:
    """An init container's blueprint: the service's volumes and networks, the hook's command."""
    service = {
        key: value
        for key, value in blueprint["service"].items()
        if key not in _NOT_OF_AN_INIT_CONTAINER
    }
    if hook.get("image"):
        service["image"] = hook["image"]
        for inherited in ("entrypoint", "command", "user", "working_dir"):
            service.pop(inherited, None)
    # An address that is fixed is the replica's.
    service["networks"] = {
        key: {k: v for k, v in (options or {}).items() if k == "priority"}
        for key, options in (service.get("networks") or {}).items()
    }
    service.pop("mac_address", None)
    service["healthcheck"] = {"disable": True}
    for key in ("command", "user", "working_dir"):
        if hook.get(key):
            service[key] = hook[key]
    if hook.get("privileged"):
        service["privileged"] = True
    service["environment"] = {
        **(service.get("environment") or {}),
        **{k: v for k, v in (hook.get("environment") or {}).items() if v is not None},
    }
    return {**blueprint, "service": service, "oneoff": {}}
