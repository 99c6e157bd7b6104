"""Attributes that a spec may have and bayplan does not act on: named, never silently ignored.

Each row says why. An attribute leaves the table when it is implemented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specs import patterns
from specs.errors import SpecIssue
from specs.patterns import Patterns
from specs.source import Node, issue

_ALWAYS: Callable[[Any], bool] = lambda value: value not in (None, "", {}, [])  # noqa: E731
_WINDOWS = "applies to Windows containers only"
_CLUSTER = "applies to clusters of several hosts only"


def _is(*values: object) -> Callable[[Any], bool]:
    return lambda value: value in values


_UNSUPPORTED: Patterns[tuple[Callable[[Any], bool], str]] = Patterns(
    {
        "configs.*.template_driver": (_ALWAYS, _CLUSTER),
        "models.*": (_ALWAYS, "models are not provided by bayplan"),
        "secrets.*.driver": (_ALWAYS, _CLUSTER),
        "secrets.*.template_driver": (_ALWAYS, _CLUSTER),
        "services.*.build.entitlements": (_ALWAYS, "builds have no entitlements to grant"),
        "services.*.build.isolation": (_ALWAYS, _WINDOWS),
        "services.*.build.provenance": (_is("true", True), "no provenance is attested"),
        "services.*.build.sbom": (_is("true", True), "no bill of materials is written"),
        "services.*.cpu_count": (_ALWAYS, _WINDOWS),
        "services.*.cpu_percent": (_ALWAYS, _WINDOWS),
        "services.*.credential_spec": (_ALWAYS, _WINDOWS),
        "services.*.deploy.endpoint_mode": (_ALWAYS, _CLUSTER),
        "services.*.deploy.mode": (_is("global", "global-job", "replicated-job"), _CLUSTER),
        "services.*.deploy.placement": (_ALWAYS, _CLUSTER),
        "services.*.isolation": (_ALWAYS, _WINDOWS),
        "services.*.models": (_ALWAYS, "models are not provided by bayplan"),
        "services.*.provider": (_ALWAYS, "external providers are not run"),
        "services.*.pull_refresh_after": (_ALWAYS, "images are refreshed by pull_policy only"),
        "services.*.use_api_socket": (_is(True), "containers are given no engine socket"),
        "services.*.volumes.*.consistency": (_ALWAYS, "mounts on Linux are always consistent"),
        "services.*.volumes.*.type": (
            _is("npipe", "cluster"),
            "this type of mount does not exist on a single Linux host",
        ),
    }
)


def find(root: Node) -> list[SpecIssue]:
    """Every attribute of the tree that is not acted on, by position."""
    found = []
    for path, node, (applies, reason) in patterns.matches(root, _UNSUPPORTED):
        if applies(node.plain()):
            mark = node.key_mark or node.mark
            found.append(issue(f"is not supported: {reason}", mark=mark, path=path))
    return sorted(found, key=lambda item: (item.file or "", item.line, item.column, item.path))
