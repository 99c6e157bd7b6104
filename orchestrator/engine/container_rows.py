"""Records of containers as rows of the state database: texts in JSON where a field is no scalar.

What was decoded is kept: a container is read many times for each time that it changes, and then
little of it does. The records are frozen, and so nobody changes what is in them either.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from orchestrator.engine.records import (
    ContainerRecord,
    EndpointRecord,
    PortRecord,
    ProcessRecord,
)
from orchestrator.planning.health import HealthState

FIELDS = tuple(f.name for f in fields(ContainerRecord))

_PASSING_FIELDS = frozenset(
    {
        *("started_at", "finished_at", "exit_code", "error"),
        *("restarts", "restart_delay", "restart_at", "health", "ports", "hooks_due"),
    }
)
LASTING_FIELDS = tuple(name for name in FIELDS if name not in _PASSING_FIELDS)


class Decoded:
    """The records of a database's rows; safe for several threads."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[dict[str, Any], ContainerRecord]] = {}

    def record(self, row: sqlite3.Row) -> ContainerRecord:
        raw = dict(row)
        before, record = self._known.get(raw["id"], ({}, None))
        if raw == before and record is not None:
            return record
        values = {
            name: getattr(record, name)
            if before.get(name, _ABSENT) == text
            else _decode(name, text)
            for name, text in raw.items()
        }
        record = ContainerRecord(**values)
        self._known[record.id] = (raw, record)
        return record

    def forget(self, id: str) -> None:
        self._known.pop(id, None)


_ABSENT = object()


def encode_all(record: ContainerRecord) -> dict[str, Any]:
    return {name: encode(name, getattr(record, name)) for name in FIELDS}


def encode(name: str, value: Any) -> Any:
    """The field `name` as the column has it."""
    match name:
        case "endpoints" | "ports":
            return json.dumps([asdict(item) for item in value])
        case "process":
            return json.dumps(asdict(value))
        case "health":
            return None if value is None else json.dumps(value.to_json())
        case "spec" | "volumes":
            return dump(value)
        case "source":
            return json.dumps(list(value))
        case "oneoff" | "hooks_due":
            return int(value)
    return value


def _decode(name: str, text: Any) -> Any:
    match name:
        case "endpoints":
            return tuple(
                EndpointRecord(**{**item, "aliases": tuple(item["aliases"])})
                for item in json.loads(text)
            )
        case "ports":
            return tuple(PortRecord(**item) for item in json.loads(text))
        case "process":
            process = json.loads(text)
            tuples = {key: tuple(process[key]) for key in ("command", "shell")}
            return ProcessRecord(**{**process, **tuples})
        case "health":
            return None if text is None else HealthState.from_json(json.loads(text))
        case "spec" | "volumes":
            return json.loads(text)
        case "source":
            return tuple(json.loads(text))
        case "oneoff" | "hooks_due":
            return bool(text)
    return text


def dump(value: Mapping[str, Any]) -> str:
    """In one form: equal values are equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
