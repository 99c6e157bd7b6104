"""Builds that are not done: checked, or shown as they would be done."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.engine.build_requests import (
    arguments_of,
    dockerfile_request,
    labels_of,
    platforms_of,
    service_of,
)
from orchestrator.planning import actions
from orchestrator.planning.builds import plan_builds
from runtime.build.builder import check
from specs.project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What the builder's rules say about a Dockerfile; `line` 0 is the file as a whole."""

    service: str
    dockerfile: str
    line: int
    rule: str
    message: str


def look_over(
    project: Project, services: Iterable[str], model: actions.BuildImage
) -> Iterator[Remark]:
    """Check the Dockerfiles of these services; raises BuildError for what no build could read."""
    for action in _builds(project, services, model):
        with (
            tempfile.TemporaryDirectory(prefix="bay-check-") as scratch,
            dockerfile_request(action, Path(scratch)) as request,
        ):
            for warning in check(request):
                yield Remark(
                    service=action.service,
                    dockerfile=request.dockerfile or "dockerfile_inline",
                    line=warning.line,
                    rule=warning.rule,
                    message=warning.message,
                )


def bake(project: Project, services: Iterable[str], model: actions.BuildImage) -> dict[str, Any]:
    """The builds as the file of `docker buildx bake` that says the same.

    Source: Docker's Bake file reference. Secrets stand in it by file or variable, never by
    content.
    """
    targets = {action.service: _target(action) for action in _builds(project, services, model)}
    return {"group": {"default": {"targets": list(targets)}}, "target": targets}


def _builds(
    project: Project, services: Iterable[str], model: actions.BuildImage
) -> list[actions.BuildImage]:
    steps = plan_builds(project, services, model).steps
    return [step.action for step in steps if isinstance(step.action, actions.BuildImage)]


def _target(action: actions.BuildImage) -> dict[str, Any]:
    service = service_of(action)
    build = service["build"]
    contexts: Mapping[str, str] = build.get("additional_contexts") or {}
    target = {
        "context": build["context"],
        "contexts": {
            name: f"target:{value.removeprefix('service:')}"
            if value.startswith("service:")
            else value
            for name, value in contexts.items()
        },
        "dockerfile": build.get("dockerfile"),
        "dockerfile-inline": build.get("dockerfile_inline"),
        "args": arguments_of(action, build),
        "labels": labels_of(action, build),
        "tags": [action.name, *build.get("tags", ())],
        "target": build.get("target"),
        "platforms": list(platforms_of(action, service)),
        "cache-from": list(build.get("cache_from") or ()),
        "cache-to": list(build.get("cache_to") or ()),
        "no-cache": action.no_cache or bool(build.get("no_cache")),
        "no-cache-filter": list(build.get("no_cache_filter") or ()),
        "pull": action.pull or bool(build.get("pull")),
        "network": build.get("network"),
        "extra-hosts": _hosts(build),
        "shm-size": str(build["shm_size"]) if build.get("shm_size") else None,
        "ulimits": [_ulimit(name, limit) for name, limit in (build.get("ulimits") or {}).items()],
        "secret": [_secret(action, use) for use in build.get("secrets") or ()],
        "ssh": _agents(action, build),
        "entitlements": list(build.get("entitlements") or ()),
        "memory": action.memory,
    }
    return {key: value for key, value in target.items() if value not in (None, "", [], {}, False)}


def _hosts(build: Mapping[str, Any]) -> dict[str, str]:
    hosts: Mapping[str, list[str]] = build.get("extra_hosts") or {}
    return {name: ",".join(addresses) for name, addresses in hosts.items()}


def _ulimit(name: str, limit: Mapping[str, Any]) -> str:
    single = limit.get("single")
    return f"{name}={single or limit.get('soft', 0)}:{single or limit.get('hard', 0)}"


def _secret(action: actions.BuildImage, use: Mapping[str, Any]) -> str:
    definition = (action.project.canonical().get("secrets") or {}).get(use["source"]) or {}
    id = use.get("target") or use["source"]
    if definition.get("file"):
        return f"id={id},type=file,src={definition['file']}"
    return f"id={id},type=env,env={definition.get('environment') or use['source']}"


def _agents(action: actions.BuildImage, build: Mapping[str, Any]) -> list[str]:
    wanted = {**(build.get("ssh") or {}), **action.ssh}
    return [f"{id}={path}" if path else id for id, path in wanted.items()]
