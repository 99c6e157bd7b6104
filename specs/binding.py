"""From the canonical tree to the models, with every fault put back where the value stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from specs.errors import SpecError, SpecIssue
from specs.project import Project
from specs.schema import suggest
from specs.source import Node, Path, issue
from specs.values import read_optional_map

_SECTIONS = ("services", "networks", "volumes", "secrets", "configs", "models")


def bind(root: Node, *, name: str, working_dir: str, config_files: tuple[str, ...]) -> Project:
    """The project that the tree describes, with every service enabled. Raises SpecError."""
    plain = root.plain()
    services = plain.get("services") or {}
    for service in services.values():
        if service is not None:
            _split_environment(service)
    document = {
        **{section: _sorted(plain.get(section)) for section in _SECTIONS},
        **{key: value for key, value in plain.items() if key.startswith("x-")},
        "name": name,
        "working_dir": working_dir,
        "config_files": config_files,
    }
    try:
        return Project.model_validate(document)
    except ValidationError as exc:
        raise SpecError(validation_issues(exc, root)) from exc


def _sorted(section: Any) -> dict[str, Any]:
    """The entries by name; `name:` without anything says no more than `name: {}`."""
    return {k: {} if v is None else v for k, v in sorted(section.items())} if section else {}


def _split_environment(service: dict[str, Any]) -> None:
    environment: Mapping[str, str | None] | None = read_optional_map(service.get("environment"))
    if environment is None:
        service.pop("environment", None)
        return
    service["environment"] = {k: v for k, v in environment.items() if v is not None}
    service["unset_environment"] = tuple(sorted(k for k, v in environment.items() if v is None))


def validation_issues(
    error: ValidationError, root: Node, *, known: Callable[[Path], Iterable[str]] | None = None
) -> list[SpecIssue]:
    """What pydantic found, each fault where its value stands in the tree.

    `known` gives the keys that are allowed beside an unknown one, by that one's path.
    """
    found: dict[tuple[str, Path], SpecIssue] = {}
    for fault in error.errors(include_url=False, include_input=False):
        path = _path(root, fault["loc"])
        cause = fault.get("ctx", {}).get("error")
        node, hint = root.find(path), None
        if isinstance(cause, Exception):
            message = str(cause)
        elif fault["type"] == "extra_forbidden":
            message = f'unknown key "{fault["loc"][-1]}"'
            hint = suggest(str(fault["loc"][-1]), known(path)) if known is not None else None
        elif fault["type"] == "missing":
            message = f'"{fault["loc"][-1]}" is missing'
        else:
            message = fault["msg"].replace("Input should be", "must be")
            message = message[:1].lower() + message[1:]
        mark = node.key_mark if fault["type"] == "extra_forbidden" else None
        place = issue(message, node=node, mark=mark, path=path, hint=hint)
        found.setdefault((message, path), place)
    return list(found.values())


def _path(root: Node, loc: tuple[int | str, ...]) -> Path:
    """The part of pydantic's location that is a path of the tree."""
    path: list[str | int] = []
    node = root
    for step in loc:
        value = node.value
        if type(value) is dict and step in value:
            node = value[step]
        elif type(value) is list and isinstance(step, int) and step < len(value):
            node = value[step]  # mypy needs the two cases apart
        else:
            break
        path.append(step)
    return tuple(path)
