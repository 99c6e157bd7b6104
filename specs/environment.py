"""A service's variables and labels: what its files, its own keys and the project add up to.

Precedence in the container: `environment:` (bare keys too) over `env_file:`, a later file over an
earlier one.
Sources: Compose Specification, environment, env_file, label_file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from specs import dotenv
from specs.errors import SpecIssue
from specs.source import Node, Path, Source, issue
from specs.values import read_map, read_optional_map

Lookup = Callable[[str], str | None]


class Files(Protocol):
    """Reads env and label files."""

    def read_optional(self, path: str, *, asked_at: Node, attribute: Path) -> Source | None:
        """The text of a file, None if there is none. Raises SpecError if it cannot be read, which
        names the place that asked for it."""


def resolve_environment(
    service: Node, lookup: Lookup, files: Files, path: Path, issues: list[SpecIssue]
) -> None:
    """Replaces a service's `environment` and `env_file` by its complete variables, in place."""
    node = service.value.get("environment")
    own: dict[str, str | None] = read_optional_map(node.plain()) if node is not None else {}
    own = {key: lookup(key) if value is None else value for key, value in own.items()}

    def surroundings(name: str) -> str | None:
        found = lookup(name)
        return found if found is not None else own.get(name)

    values: dict[str, str] = {}
    entries = service.value.pop("env_file", None)
    for index, entry in enumerate(entries.value if entries is not None else ()):
        text, where = entry.value["path"].value, (*path, "env_file", index)
        source = files.read_optional(text, asked_at=entry, attribute=where)
        if source is None:
            if _required(entry):
                issues.append(issue(f"env file {text} not found", node=entry, path=where))
            continue
        form = entry.value["format"].value if "format" in entry.value else ""
        if form not in ("", "raw"):
            issues.append(issue(f"unknown env file format {form!r}", node=entry, path=where))
        elif form == "raw":
            values.update(dotenv.parse_raw(source))
        else:
            values.update(dotenv.parse(source, surroundings, values))
    # A bare key that is set nowhere hides even the value that a file has.
    merged: Mapping[str, str | None] = {**values, **own}
    if merged or node is not None:
        _put(service, "environment", merged, node)


def _required(entry: Node) -> bool:
    required = entry.value.get("required")
    return required is None or required.value is True or str(required.value).lower() == "true"


def resolve_labels(service: Node, files: Files, path: Path, issues: list[SpecIssue]) -> None:
    """Adds the labels of `label_file` to a service's own ones, in place; own ones win."""
    entries = service.value.get("label_file")
    if entries is None:
        return
    labels: dict[str, str] = {}
    for index, entry in enumerate(entries.value):
        where = (*path, "label_file", index)
        source = files.read_optional(str(entry.value), asked_at=entry, attribute=where)
        if source is None:
            issues.append(issue(f"label file {entry.value} not found", node=entry, path=where))
        else:
            labels.update(dotenv.parse(source, labels.get))
    node = service.value.get("labels")
    labels.update(read_map(node.plain()) if node is not None else {})
    if labels:
        _put(service, "labels", labels, node)


def _put(service: Node, key: str, values: Mapping[str, Any], old: Node | None) -> None:
    mark = old.mark if old is not None else service.mark
    children = old.value if old is not None and type(old.value) is dict else {}
    service.value[key] = Node(
        {
            name: Node(value, children[name].mark if name in children else mark)
            for name, value in values.items()
        },
        mark,
        old.key_mark if old is not None else None,
    )
