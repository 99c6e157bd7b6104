"""The plan of `run`: one more container of a service, beside its replicas, and what it needs."""

from __future__ import annotations

import dataclasses
from typing import Any

from orchestrator.planning.actions import CreateContainer
from orchestrator.planning.errors import UnknownService
from orchestrator.planning.observed import Observed
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy
from orchestrator.planning.reconcile import reconcile
from specs.project import Project


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OneOff:
    """What is asked for. `changes` replace attributes of the canonical service, `additions` are
    added to its maps and lists; `number` tells it from all others of its service.

    Its output waits for somebody to attach with `attach`; `size` is its terminal's, in rows and
    columns; with `remove` it goes once it has ended. Of its ports and its service's names on
    networks it has those that are asked for.
    """

    service: str
    name: str
    number: int
    changes: dict[str, Any]
    additions: dict[str, Any]
    service_ports: bool = False
    use_aliases: bool = False
    attach: bool = False
    remove: bool = False
    size: tuple[int, int] | None = None


def varied(project: Project, wish: OneOff) -> Project:
    """The project with the service as the one-off container is to be; raises UnknownService,
    CanonicalError."""
    document = project.canonical()
    if wish.service not in document["services"]:
        raise UnknownService(wish.service, document["services"])
    service: dict[str, Any] = {**document["services"][wish.service], **wish.changes}
    service |= {"container_name": wish.name, "scale": 1, "restart": "no"}
    service.pop("deploy", None)
    service.pop("pre_start", None)
    if not wish.service_ports:
        service.pop("ports", None)
    networks = {}
    for key, options in (service.get("networks") or {}).items():
        aliases = (
            [wish.service, *((options or {}).get("aliases") or ())] if wish.use_aliases else []
        )
        # An address that is asked for by number belongs to the replica that has it.
        kept = {k: v for k, v in (options or {}).items() if k not in ("aliases", "ipv4_address")}
        networks[key] = {**kept, "aliases": aliases} if aliases else kept
    if networks:
        service["networks"] = networks
    for name, value in wish.additions.items():
        if isinstance(value, dict):
            service[name] = {**(service.get(name) or {}), **value}
        else:
            service[name] = [*_without(service.get(name) or [], value), *value]
    if wish.changes.get("depends_on") == {}:
        service.pop("depends_on", None)
    for mount in wish.additions.get("volumes") or ():
        if mount.get("type") == "volume" and mount.get("source"):
            known = document.setdefault("volumes", {})
            known.setdefault(mount["source"], {"name": mount["source"]})
    document["services"] = {**document["services"], wish.service: service}
    return Project.from_canonical(document)


def _without(present: list[Any], added: list[Any]) -> list[Any]:
    """What an added mount does not take the place of."""
    targets = {item["target"] for item in added if isinstance(item, dict) and "type" in item}
    return [
        item for item in present if not (isinstance(item, dict) and item.get("target") in targets)
    ]


def plan_oneoff(
    project: Project, observed: Observed, policy: Policy, wish: OneOff, now: float
) -> Plan:
    """Plan a container of `project`, which is `varied`, and its dependencies first."""
    others = tuple(c for c in observed.containers if c.service != wish.service or c.oneoff)
    left = {key: it for key, it in observed.inheritance.items() if key[0] != wish.service}
    plan = reconcile(
        project,
        dataclasses.replace(observed, containers=others, inheritance=left),
        dataclasses.replace(policy, services=(wish.service,)),
        now,
    )
    steps = []
    for step in plan.steps:
        action = step.action
        if isinstance(action, CreateContainer) and action.name == wish.name:
            oneoff = {"attach": wish.attach, "remove": wish.remove, "size": wish.size}
            spec = {**action.spec, "oneoff": oneoff}
            action = dataclasses.replace(action, number=wish.number, spec=spec)
        steps.append(dataclasses.replace(step, action=action))
    return dataclasses.replace(plan, steps=tuple(steps))
