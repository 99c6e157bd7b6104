"""One-off containers: made for `run`, and taken away once they have ended where that was asked."""

from __future__ import annotations

import asyncio
import logging
import secrets
from time import time
from typing import Any

from pydantic import Field

from orchestrator.engine import preflight
from orchestrator.engine.errors import chain
from orchestrator.engine.events import ContainerEvent
from orchestrator.engine.exits import HOST_FAULTS
from orchestrator.planning.actions import Cause, RemoveContainer
from orchestrator.planning.oneoff import OneOff, plan_oneoff, varied
from orchestrator.planning.policy import Policy
from orchestrator.supervisor.bodies import Body, Options
from orchestrator.supervisor.instance import Instance
from orchestrator.supervisor.operations import Run
from specs.project import Project

_log = logging.getLogger(__name__)

# Numbers of one-off containers begin where no replica's does.
_FIRST_NUMBER = 1_000_000


class RunOptions(Options):
    """Options of `run`; `changes` and `additions` are parts of a canonical service."""

    service: str
    name: str | None = None
    changes: dict[str, Any] = Field(default_factory=dict)
    additions: dict[str, Any] = Field(default_factory=dict)
    build: bool = False
    pull: str = "missing"
    no_deps: bool = False
    service_ports: bool = False
    use_aliases: bool = False
    remove_orphans: bool = False
    attach: bool = False
    remove: bool = False
    size: tuple[int, int] | None = None
    environ: dict[str, str] = Field(default_factory=dict)


class RunBody(Body):
    project: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    options: RunOptions


async def run_oneoff(
    instance: Instance, project: Project, options: RunOptions, run: Run
) -> dict[str, Any]:
    """Start the container, dependencies first; the result event holds its name."""
    slug = secrets.token_hex(6)
    wish = OneOff(
        service=options.service,
        name=options.name or f"{project.name}-{options.service}-run-{slug}",
        number=_FIRST_NUMBER + int(slug, 16) % 2**40,
        changes={**options.changes, **({"depends_on": {}} if options.no_deps else {})},
        additions=options.additions,
        service_ports=options.service_ports,
        use_aliases=options.use_aliases,
        attach=options.attach,
        remove=options.remove,
        size=options.size,
    )
    policy = Policy(
        build="always" if options.build else "missing",
        pull=options.pull,  # type: ignore[arg-type]  # the command line's choices are its words
        dependencies=not options.no_deps,
        remove_orphans=options.remove_orphans,
        environ=options.environ,
    )
    operations = instance.operations
    async with operations.exclusive(project.name):
        alone = varied(project, wish)
        plan = plan_oneoff(alone, await operations.observe(alone), policy, wish, time())
        await asyncio.to_thread(preflight.check, instance.host, plan)
        ended = await operations.carry_out(plan, run)
        if not ended["ok"] and instance.host.store.container_named(wish.name) is not None:
            await remove(instance, wish.name)
    return {**ended, "container": wish.name}


async def remove(instance: Instance, name: str) -> None:
    """Remove a container that does not run, with its anonymous volumes."""
    record = instance.host.store.container_named(name)
    if record is not None:
        await instance.backend.remove_container(
            RemoveContainer(
                name=name,
                service=record.service,
                cause=Cause(reason="it was to go once it has ended"),
                volumes=True,
            )
        )


async def remove_ended(instance: Instance) -> None:
    """Take away what has ended and was to go then, now and whenever a container ends; runs until
    cancelled."""
    with instance.host.bus.subscribe() as events:
        await _sweep(instance)
        async for event in events:
            if isinstance(event, ContainerEvent) and event.action == "die":
                await _sweep(instance)


async def _sweep(instance: Instance) -> None:
    records = [
        record
        for record in instance.host.store.oneoffs()
        if (record.spec.get("oneoff") or {}).get("remove")
    ]
    if not records:
        return
    statuses = await asyncio.to_thread(instance.backend.statuses, records)
    for record in records:
        if statuses.get(record.id) == "exited":
            try:
                await remove(instance, record.name)
            except HOST_FAULTS as exc:
                _log.error("remove container %s: %s", record.name, chain(exc))
