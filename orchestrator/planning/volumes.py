"""Volume steps: create what is missing; what differs is kept, for it holds data."""

from __future__ import annotations

from orchestrator.planning.actions import Cause, CreateVolume
from orchestrator.planning.draft import Draft
from orchestrator.planning.drift import needs_recreate, resource_drift
from orchestrator.planning.errors import MissingExternal


def plan_volumes(draft: Draft) -> None:
    """Add one step for each named volume of the selected services that does not exist."""
    used = draft.unused("volumes") | {
        key: str(name)
        for service in draft.selected
        for key, name in draft.blueprints[service]["volumes"].items()
    }
    for key, name in sorted(used.items()):
        spec = (draft.canonical.get("volumes") or {}).get(key) or {}
        observed = draft.observed.volumes.get(name)
        if observed is None and spec.get("external"):
            raise MissingExternal("volume", name)
        if observed is None:
            images = [
                step
                for service in draft.users("volumes", name)
                for step in draft.needed_images(service)
            ]
            draft.volume_steps[name] = draft.builder.add(
                CreateVolume(
                    name=name,
                    cause=Cause(reason="does not exist"),
                    project=draft.project.name,
                    key=key,
                    spec=spec,
                ),
                after=images,
            )
        elif observed.project == draft.project.name:
            changes = resource_drift(observed.spec, spec)
            if needs_recreate(changes):
                draft.builder.note(
                    f"volume {name} {Cause(reason='differs', changes=changes)}; it is kept with "
                    "its data, remove it to have it made again"
                )
