"""Attributes that a spec may have and bayplan does not act on: named, never silently ignored.

Each row says why. An attribute leaves the table when it is implemented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specs import patterns
from specs.errors import SpecIssue
from specs.patterns import Patterns
from specs.source import Node, Path, issue

Applies = Callable[[Any], bool]


def _given(value: Any) -> bool:
    return value not in (None, "", {}, [])


_WINDOWS = "applies to Windows containers only"
_CLUSTER = "applies to clusters of several hosts only"


def _is(*values: object) -> Applies:
    return lambda value: value in values


def _but(*values: str) -> Applies:
    return lambda value: _given(value) and str(value).lower() not in values


_UNSUPPORTED: Patterns[tuple[Applies, str]] = Patterns(
    {
        "configs.*.template_driver": (_given, _CLUSTER),
        "models.*": (_given, "models are not provided by bayplan"),
        "secrets.*.driver": (_given, _CLUSTER),
        "secrets.*.template_driver": (_given, _CLUSTER),
        "services.*.build.isolation": (_but("default"), _WINDOWS),
        "services.*.build.provenance": (_but("false"), "no provenance is attested"),
        "services.*.build.sbom": (_but("false"), "no bill of materials is written"),
        "services.*.cpu_count": (_given, _WINDOWS),
        "services.*.cpu_percent": (_given, _WINDOWS),
        "services.*.credential_spec": (_given, _WINDOWS),
        "services.*.deploy.endpoint_mode": (_given, _CLUSTER),
        "services.*.deploy.mode": (_is("global", "global-job", "replicated-job"), _CLUSTER),
        "services.*.deploy.placement": (_given, _CLUSTER),
        "services.*.isolation": (_given, _WINDOWS),
        "services.*.models": (_given, "models are not provided by bayplan"),
        "services.*.provider": (_given, "external providers are not run"),
        "services.*.storage_opt": (
            _given,
            "a container's own layer cannot be bounded; bound the file system of the state "
            "directory, which holds them all",
        ),
        "services.*.use_api_socket": (_is(True), "containers are given no engine socket"),
        "services.*.volumes.*.consistency": (_given, "mounts on Linux are always consistent"),
        "services.*.volumes.*.type": (
            _is("npipe", "cluster"),
            "this type of mount does not exist on a single Linux host",
        ),
    }
)


def find(root: Node) -> list[SpecIssue]:
    """Every attribute of the tree that is not acted on, by position."""
    found: dict[Path, SpecIssue] = {}
    for path, node, (applies, reason) in patterns.matches(root, _UNSUPPORTED):
        if applies(node.plain()):
            mark = node.key_mark or node.mark
            found[path] = issue(f"is not supported: {reason}", mark=mark, path=path)
    return sorted(
        found.values(), key=lambda item: (item.file or "", item.line, item.column, item.path)
    )
