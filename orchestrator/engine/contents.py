"""Reads what configs and secrets hold, so that a plan can compare it and a container get it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.engine.errors import EngineError
from orchestrator.engine.filesystem import Content

LIMIT = 1024 * 1024


def read_contents(canonical: Mapping[str, Any], services: Mapping[str, Any]) -> dict[str, Content]:
    """The contents that `services` (canonical, by name) use, keyed "configs.NAME" and
    "secrets.NAME".

    Raises EngineError for a file that cannot be read or is over 1 MiB, and for an external
    source, as nothing outside of a project holds any.
    """
    used = {
        (kind, str(use["source"]))
        for service in services.values()
        for kind in ("configs", "secrets")
        for use in service.get(kind) or ()
    }
    return {
        f"{kind}.{name}": Content(
            data=read_content(
                kind.removesuffix("s"), name, (canonical.get(kind) or {}).get(name) or {}
            ),
            secret=kind == "secrets",
        )
        for kind, name in sorted(used)
    }


def read_content(kind: str, name: str, definition: Mapping[str, Any]) -> bytes:
    """What one config or secret ("config", "secret") holds; raises EngineError."""
    if definition.get("content") is not None:
        return str(definition["content"]).encode()
    if not definition.get("file"):
        raise EngineError(
            f"{kind} {name} has no content here",
            hint="give it a file, a content or an environment variable that is set",
        )
    path = Path(definition["file"])
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as exc:
        raise EngineError(f"read {kind} {name}") from exc
    if len(data) > LIMIT:
        raise EngineError(f"{kind} {name}: {path} is larger than 1 MiB")
    return data
