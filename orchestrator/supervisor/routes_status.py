"""Routes that tell how a project is, and how it came to be so: status, revisions, differences."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from orchestrator.engine.errors import EngineError, chain
from orchestrator.engine.records import Revision
from orchestrator.planning.drift import Change as FieldChange
from orchestrator.planning.drift import FieldClass
from orchestrator.planning.errors import PlanningError
from orchestrator.planning.policy import Policy
from orchestrator.serving.messages import Request, Response, json_response
from orchestrator.serving.routes import RouteTable
from orchestrator.supervisor.errors import BadRequest, NoSuchProject
from orchestrator.supervisor.instance import Instance
from orchestrator.supervisor.journal import Operation
from orchestrator.supervisor.requests import instance_of
from orchestrator.supervisor.status import Comparison, project_status
from orchestrator.supervisor.views import time_text
from specs.canonical import diff
from specs.project import Project

ROUTES = RouteTable()


class NoSuchRevision(EngineError):
    def __init__(self, project: str, number: int) -> None:
        super().__init__(
            f"project {project} has no revision {number}",
            hint=f"bay history -p {project} lists them",
        )


@ROUTES.get("/v1/projects/{project}/status")
async def show_status(request: Request) -> Response:
    """Sync (is it as last applied?) and health (does it do well?), whole and by service."""
    instance, name = instance_of(request), request.parameters["project"]
    store = instance.host.store
    applied, records = store.project(name), store.containers(name)
    if applied is None and not records:
        raise NoSuchProject(name)
    spec = dict(applied.spec) if applied is not None else None
    comparison = await _compare(instance, spec)
    shown = project_status(
        name=name,
        spec=spec,
        observed=await instance.backend.observe(name),
        records=records,
        comparison=comparison,
    )
    for service in shown["services"]:
        if service["last_exit"] is not None:
            service["last_exit"]["at"] = time_text(service["last_exit"]["at"])
    revisions = store.revisions(name)
    shown["revision"] = revisions[-1].number if revisions else None
    return json_response(shown)


async def _compare(instance: Instance, spec: dict[str, Any] | None) -> Comparison:
    if spec is None:
        return Comparison(steps={}, error="it is not known what was applied; bay up tells")
    try:
        plan = await instance.operations.plan(Project.from_canonical(spec), Policy())
    except (PlanningError, EngineError, ValueError) as exc:
        return Comparison(steps={}, error=chain(exc))
    return Comparison.of(plan)


@ROUTES.get("/v1/projects/{project}/revisions")
async def list_revisions(request: Request) -> Response:
    """The forms in which the project was applied, oldest first, each with the operations."""
    instance, name = instance_of(request), request.parameters["project"]
    operations = await asyncio.to_thread(instance.journal.operations, name)
    return json_response(
        [_revision(revision, operations) for revision in instance.host.store.revisions(name)]
    )


@ROUTES.get("/v1/projects/{project}/operations")
async def list_operations(request: Request) -> Response:
    """The last commands on the project, oldest first, and how they ended."""
    instance, name = instance_of(request), request.parameters["project"]
    operations = await asyncio.to_thread(instance.journal.operations, name)
    return json_response([_operation(operation) for operation in operations])


@ROUTES.get("/v1/projects/{project}/revisions/{number:[0-9]+}")
async def show_revision(request: Request) -> Response:
    """One revision with its canonical project."""
    instance, name = instance_of(request), request.parameters["project"]
    revision = _find(instance, name, int(request.parameters["number"]))
    operations = await asyncio.to_thread(instance.journal.operations, name)
    return json_response({**_revision(revision, operations), "project": dict(revision.spec)})


@ROUTES.get("/v1/projects/{project}/diff")
async def show_difference(request: Request) -> Response:
    """What differs between the revisions `from` and `to`; the last two where neither is given."""
    instance, name = instance_of(request), request.parameters["project"]
    revisions = instance.host.store.revisions(name)
    if not revisions:
        raise NoSuchProject(name)
    newest = revisions[-1].number
    new = _number(request, "to", newest)
    old = _number(request, "from", max(new - 1, revisions[0].number))
    before, after = _find(instance, name, old), _find(instance, name, new)
    return json_response({"from": old, "to": new, "changes": _changes(before.spec, after.spec)})


def _number(request: Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if not text:
        return default
    if not text.isdecimal():
        raise BadRequest(f"{name}: {text} is no revision's number")
    return int(text)


def _find(instance: Instance, project: str, number: int) -> Revision:
    for revision in instance.host.store.revisions(project):
        if revision.number == number:
            return revision
    raise NoSuchRevision(project, number)


def _changes(old: Any, new: Any) -> list[dict[str, Any]]:
    """The fields that differ; of what looks like a secret only that it does."""
    shown = []
    for change in diff(dict(old), dict(new)):
        field = change.path.partition("environment.")[2]
        hidden = FieldChange(
            field=f"environment.{field}", old=None, new=None, kind=FieldClass.IGNORED
        )
        if field and hidden.sensitive:
            shown.append({"path": change.path, "hidden": True})
        else:
            shown.append({"path": change.path, "old": change.old, "new": change.new})
    return shown


def _revision(revision: Revision, operations: Iterable[Operation]) -> dict[str, Any]:
    own = [
        _operation(operation) for operation in operations if operation.revision == revision.number
    ]
    return {
        "number": revision.number,
        "digest": revision.digest,
        "applied_at": time_text(revision.applied_at),
        "outcome": own[-1]["outcome"] if own else "",
        "operations": own,
    }


def _operation(operation: Operation) -> dict[str, Any]:
    return {
        "command": operation.command,
        "revision": operation.revision,
        "started_at": time_text(operation.started_at),
        "seconds": round(operation.finished_at - operation.started_at, 6),
        "outcome": operation.outcome,
        "error": operation.error,
        "steps": operation.steps,
    }
