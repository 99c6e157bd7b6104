"""Which project a request means: the one that it carries, or one that is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

from orchestrator.engine.records import Load, ProjectRecord
from orchestrator.engine.store import Store
from orchestrator.supervisor.errors import BadRequest, NoSuchProject
from specs.canonical import digest
from specs.project import Project


def resolve_project(
    store: Store,
    name: str,
    document: dict[str, Any] | None,
    inputs: Mapping[str, Any] | None,
) -> Project:
    """The project of a request; what it carries is remembered with its inputs.

    Without a document it is the one that was loaded with exactly these inputs, or, where no
    inputs are given either, the one that was last applied. Raises NoSuchProject, BadRequest.
    """
    if document is None:
        return _remembered(store, name, inputs)
    project = Project.from_canonical(document)
    if project.name != name:
        raise BadRequest(f"the request is for project {name}, its body holds {project.name}")
    if inputs is not None and inputs.get("directory"):
        store.put_load(
            Load(
                directory=str(inputs["directory"]),
                project=name,
                config_files=project.config_files,
                inputs=inputs,
                spec=document,
                used_at=time(),
            )
        )
    return project


def record_project(store: Store, project: Project) -> int:
    """Write down that this is what is wanted from now on; the result is its revision."""
    document = project.canonical()
    return store.put_project(
        ProjectRecord(
            name=project.name,
            working_dir=project.working_dir,
            config_files=project.config_files,
            spec=document,
            digest=digest(document),
            updated_at=time(),
        )
    )


def former_project(store: Store, name: str, service: str, spec: Mapping[str, Any]) -> Project:
    """The project as it was last applied, with a service as it was before; networks, volumes,
    configs and secrets that only the former one has come from the last revision that had them.
    """
    record = store.project(name)
    if record is None:
        raise NoSuchProject(name)
    document = dict(record.spec)
    document["services"] = {
        **document["services"],
        service: {key: value for key, value in spec.items() if key != "name"},
    }
    for revision in store.revisions(name):
        for kind in ("networks", "volumes", "configs", "secrets"):
            former = revision.spec.get(kind) or {}
            document[kind] = {**former, **(record.spec.get(kind) or {})}
    return Project.from_canonical(document)


def _remembered(store: Store, name: str, inputs: Mapping[str, Any] | None) -> Project:
    if inputs is not None:
        for load in store.loads(str(inputs.get("directory") or "")):
            if load.project == name and load.inputs == inputs:
                return Project.from_canonical(dict(load.spec))
        raise NoSuchProject(name)
    record = store.project(name)
    if record is None:
        raise NoSuchProject(name)
    return Project.from_canonical(dict(record.spec))
