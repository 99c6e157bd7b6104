"""The canonical form of a project: deterministic, versioned JSON; its digest; its differences.

A project's canonical form does not depend on the order of keys in its files, nor on defaults
that a later release adds: only what differs from the default is in it. When a release changes
the shape, it raises VERSION and adds a migration from the version before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

VERSION = 1

# MIGRATIONS[n] turns a document of version n into one of version n + 1.
MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class CanonicalError(ValueError):
    """A document is not a canonical form that this release knows."""

    hint = "upgrade bayplan, or load the project from its files again"


def dump(model: BaseModel) -> dict[str, Any]:
    """The canonical form of `model`, with keys sorted at every level."""
    document = model.model_dump(mode="json", exclude_defaults=True)
    ordered: dict[str, Any] = _sorted({"version": VERSION, **document})
    return ordered


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def upgrade(document: Mapping[str, Any]) -> dict[str, Any]:
    """`document` in the shape of this release, without its version. Raises CanonicalError."""
    version = document.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CanonicalError("document has no version of the canonical form")
    if version > VERSION:
        raise CanonicalError(
            f"document has version {version} of the canonical form, this release knows {VERSION}"
        )
    body = {key: value for key, value in document.items() if key != "version"}
    for step in range(version, VERSION):
        body = MIGRATIONS[step](body)
    return body


def encode(value: Any) -> bytes:
    """`value` (plain data or a model) as JSON with sorted keys and no spaces, in UTF-8."""
    plain = value.model_dump(mode="json", exclude_defaults=True) if _is_model(value) else value
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def digest(value: Any) -> str:
    """The `sha256:…` of a value's canonical encoding."""
    return "sha256:" + hashlib.sha256(encode(value)).hexdigest()


def _is_model(value: Any) -> bool:
    return hasattr(value, "model_dump")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field that differs. `path` is its place (`ports[0].published`); None: not there."""

    path: str
    old: Any
    new: Any


def diff(old: Any, new: Any) -> list[Change]:
    """The fields in which two models or plain documents differ, in the order of their paths.

    Mappings are compared key by key, lists item by item when they have one length and as a
    whole otherwise, so that an inserted item does not make every later one a change.
    """
    changes: list[Change] = []
    _diff(_plain(old), _plain(new), "", changes)
    return changes


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_defaults=True) if _is_model(value) else value


def _diff(old: Any, new: Any, path: str, changes: list[Change]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            _diff(old.get(key), new.get(key), f"{path}.{key}" if path else str(key), changes)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            _diff(before, after, f"{path}[{index}]", changes)
    elif type(old) is not type(new) or old != new:
        changes.append(Change(path=path, old=old, new=new))
