"""Network steps: create what is missing, put back what broke, replace what differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from orchestrator.planning.actions import Cause, CreateNetwork, RemoveNetwork, UpdateNetwork
from orchestrator.planning.draft import Draft
from orchestrator.planning.drift import Change, needs_recreate, resource_drift
from orchestrator.planning.errors import MissingExternal

Replacements = Mapping[str, tuple[Change, ...]]
"""Networks that must be made again, by real name, with the changes that cause it."""


def networks_to_replace(draft: Draft, leaving: Collection[str]) -> Replacements:
    """Find the networks whose difference needs a new one; `leaving` names the containers that
    go in this run.

    One that a container outside of the run is on stays as it is; a note says so.
    """
    replacements: dict[str, tuple[Change, ...]] = {}
    for key, name in _used(draft):
        observed = draft.observed.networks.get(name)
        if observed is None or observed.project != draft.project.name or _external(draft, key):
            continue
        changes = resource_drift(observed.spec, draft.canonical["networks"][key])
        if not needs_recreate(changes):
            continue
        others = [
            *draft.observed.elsewhere.get(name, ()),
            *(
                container.name
                for container in draft.observed.containers
                if name in container.spec["networks"].values()
                and container.name not in leaving
                and (container.service not in draft.selected or container.oneoff)
            ),
        ]
        if others or draft.policy.recreate == "never":
            why = f"in use by {', '.join(sorted(others))}" if others else "nothing is recreated"
            draft.builder.note(f"network {name} {Cause(reason='differs', changes=changes)}; {why}")
            continue
        replacements[name] = changes
    return replacements


def plan_networks(
    draft: Draft,
    replacements: Replacements,
    emptied: Mapping[str, Iterable[int]],
    endpoints: Mapping[str, int],
) -> None:
    """Add the steps; `emptied` gives, by network, the steps that remove its containers, and
    `endpoints` how many containers are to be on it.

    A network waits for the images of the services on it: a failing pull or build then leaves
    nothing half-made.
    """
    for key, name in _used(draft):
        observed = draft.observed.networks.get(name)
        if _external(draft, key):
            if observed is None:
                raise MissingExternal("network", name)
            continue
        spec = draft.canonical["networks"][key]
        images = [
            step
            for service in draft.users("networks", name)
            for step in draft.needed_images(service)
        ]

        def create(cause: Cause, after: Iterable[int], *, name: str = name, key: str = key) -> None:
            draft.network_steps[name] = draft.builder.add(
                CreateNetwork(
                    name=name,
                    cause=cause,
                    project=draft.project.name,
                    key=key,
                    spec=draft.canonical["networks"][key],
                    endpoints=endpoints.get(name, 0),
                ),
                after=after,
            )

        if observed is None:
            create(Cause(reason="does not exist"), images)
        elif name in replacements:
            cause = Cause(reason="recreated", changes=replacements[name])
            removed = draft.builder.add(
                RemoveNetwork(name=name, cause=cause), after=[*images, *emptied.get(name, ())]
            )
            create(dataclasses.replace(cause, brief="removed"), [removed])
        elif not observed.intact:
            create(Cause(reason="its link is gone"), images)
        elif observed.project == draft.project.name:
            changes = resource_drift(observed.spec, spec)
            if changes and not needs_recreate(changes):
                draft.builder.add(
                    UpdateNetwork(
                        name=name,
                        cause=Cause(reason="differs", changes=changes),
                        project=draft.project.name,
                        key=key,
                        spec=spec,
                    )
                )


def _used(draft: Draft) -> list[tuple[str, str]]:
    """(key, real name) of every network that a selected service is on, by key."""
    used = draft.unused("networks") | {
        key: str(name)
        for service in draft.selected
        for key, name in draft.blueprints[service]["networks"].items()
    }
    return sorted(used.items())


def _external(draft: Draft, key: str) -> bool:
    return bool((draft.canonical.get("networks") or {}).get(key, {}).get("external"))
