"""What people really write: every valid file of the corpus plans to create, then to nothing, and
a change of one service touches that service only."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engine.executor import execute
from orchestrator.engine.simulated import Behaviour, SimulatedBackend
from orchestrator.planning.draft import namespace_parents
from orchestrator.planning.images import referenced
from orchestrator.planning.observed import Observed, ObservedNetwork, ObservedVolume
from orchestrator.planning.policy import Policy
from orchestrator.planning.reconcile import reconcile
from specs.errors import SpecError
from specs.loader import LoadOptions, load_model, load_project
from specs.project import Project
from specs.rendering import variables

CORPUS = (Path(__file__).parents[2] / "../shared/corpora/compose").resolve()
SHARES = 8

pytestmark = pytest.mark.skipif(
    not CORPUS.is_dir(), reason="the corpus of Compose files is not there"
)


def _files() -> list[Path]:
    return sorted(p for p in CORPUS.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file())


def _load(path: Path) -> Project:
    """The project of a file; where it needs variables or an env file, it gets some."""
    environment: dict[str, str] = {"PWD": str(path.parent), "HOME": "/root", "PATH": "/bin"}
    options = LoadOptions(files=(str(path),), environ=environment, cwd=path.parent)
    try:
        return load_project(options).project
    except SpecError:
        model = load_model(dataclasses.replace(options, interpolate=False))
        # A variable with a default in one place may have none in another.
        names = [v.name for v in variables(model) if not v.default or v.default.isdecimal()]
        given = {name: "/srv" if "PATH" in name else "8080" for name in names}
        options = dataclasses.replace(
            options, environ={**given, **environment}, resolve_environment=False
        )
        return load_project(options).project


def _world(project: Project) -> SimulatedBackend:
    """A host that has what the project says is there already."""
    completing = {
        dependency
        for service in project.services.values()
        for dependency, terms in service.depends_on.items()
        if terms.condition == "service_completed_successfully"
    }
    backend = SimulatedBackend(
        behaviours={
            name: Behaviour(exit_code=0) if name in completing else Behaviour(health="healthy")
            for name in project.services
        }
    )
    for network in project.networks.values():
        if network.external:
            backend.networks[network.name] = ObservedNetwork(name=network.name)
    for volume in project.volumes.values():
        if volume.external:
            backend.volumes[volume.name] = ObservedVolume(name=volume.name)
    return backend


async def _observe(backend: SimulatedBackend, project: Project) -> Observed:
    return await backend.observe(
        project.name,
        images=referenced(project),
        networks=[network.name for network in project.networks.values()],
        volumes=[volume.name for volume in project.volumes.values()],
    )


async def _check(project: Project) -> None:
    backend = _world(project)
    plan = reconcile(project, await _observe(backend, project), Policy(), 0.0)
    assert plan.empty is not any(s.replicas for s in project.services.values())
    outcome = await execute(plan, backend, lambda event: None)
    assert outcome.ok, outcome.failures
    policy = Policy(refresh=False)
    again = reconcile(project, await _observe(backend, project), policy, 0.0)
    assert again.empty, again.text()
    for name, service in project.services.items():
        if service.replicas:
            await _check_change(backend, project, name)


async def _check_change(backend: SimulatedBackend, project: Project, name: str) -> None:
    document = project.canonical()
    service = document["services"][name]
    environment = {**(service.get("environment") or {}), "BAYPLAN_CHANGED": "1"}
    document["services"][name] = {**service, "environment": environment}
    changed = Project.from_canonical(document)
    plan = reconcile(changed, await _observe(backend, project), Policy(refresh=False), 0.0)
    touched = {step.action.details().get("service") for step in plan.steps} - {None}
    assert name in touched
    assert touched <= _carried_along(document["services"], name)


def _carried_along(services: Mapping[str, Any], name: str) -> set[str]:
    """The service, and those that share what is its, or ask to be restarted with it."""
    along = {name}
    while True:
        more = {
            other
            for other, service in services.items()
            for parent in along
            if parent in namespace_parents(service)
            or (service.get("depends_on") or {}).get(parent, {}).get("restart")
        }
        if more <= along:
            return along
        along |= more


@pytest.mark.parametrize("share", range(SHARES))
def test_every_valid_file_plans_to_create_then_to_nothing(share: int) -> None:
    checked = 0
    for path in _files()[share::SHARES]:
        checked += 1
        try:
            asyncio.run(_check(_load(path)))
        except Exception as error:
            raise AssertionError(f"{path.relative_to(CORPUS)}: {error}") from error
    assert checked
