"""The rollouts table: how each service came from one form to the next, step by step.

A rollout is written before its first step is taken, so that the next daemon finds it whatever
happens, and can take it on or take it back.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.planning.observed import Role

RolloutState = Literal[
    "running", "paused", "reverting", "completed", "rolled_back", "failed", "superseded"
]

UNFINISHED: tuple[RolloutState, ...] = ("running", "reverting")
KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord:
    """A rollout of `service`; times in seconds since the epoch.

    `old` and `new` are {"spec": blueprint, "image_id": id or ""}, `strategy` is the planner's;
    `step` is the last one begun, `reason` why it ended as it did, `output` the last lines that
    a failing replica wrote.
    """

    project: str
    service: str
    strategy: Mapping[str, Any]
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    started_at: float
    deadline: float
    state: RolloutState = "running"
    step: str = ""
    reason: str = ""
    output: tuple[str, ...] = ()
    finished_at: float | None = None
    id: int = field(default=0)


class RolloutTable:
    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[sqlite3.Connection]],
        rows: Callable[..., list[sqlite3.Row]],
    ) -> None:
        self._transaction = transaction
        self._rows = rows

    def begin(self, record: RolloutRecord) -> RolloutRecord:
        """Write a new rollout down; what was open for the service is superseded."""
        with self._transaction() as database:
            database.execute(
                "UPDATE rollouts SET state = 'superseded', finished_at = ? WHERE project = ?"
                " AND service = ? AND state IN ('running', 'paused', 'reverting')",
                (record.started_at, record.project, record.service),
            )
            made = database.execute(
                "INSERT INTO rollouts (project, service, strategy, old, new, state, step, reason,"
                " output, started_at, deadline, finished_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.project,
                    record.service,
                    _dump(record.strategy),
                    _dump(record.old),
                    _dump(record.new),
                    record.state,
                    record.step,
                    record.reason,
                    json.dumps(record.output),
                    record.started_at,
                    record.deadline,
                    record.finished_at,
                ),
            )
            database.execute(
                "DELETE FROM rollouts WHERE project = ? AND service = ? AND id NOT IN"
                " (SELECT id FROM rollouts WHERE project = ? AND service = ?"
                " ORDER BY id DESC LIMIT ?)",
                (record.project, record.service, record.project, record.service, KEPT),
            )
            id = int(made.lastrowid or 0)
        return self.get(id) or record

    def update(self, id: int, **changes: Any) -> None:
        """Change some of a rollout's fields."""
        if "output" in changes:
            changes["output"] = json.dumps(changes["output"])
        assignments = ", ".join(f"{name} = :{name}" for name in changes)
        with self._transaction() as database:
            database.execute(
                f"UPDATE rollouts SET {assignments} WHERE id = :_id", {**changes, "_id": id}
            )

    def backstage(self) -> frozenset[str]:
        """The ids of the containers that a rollout keeps out of traffic."""
        rows = self._rows("SELECT id FROM containers WHERE role != 'current'")
        return frozenset(row["id"] for row in rows)

    def promote(self, name: str, candidate: str, aside: str, role: Role) -> None:
        """Give the container named `candidate` the name and the place of `name`, whose own is
        called `aside` from then on and is in this role. Nothing happens where it has been done."""
        with self._transaction() as database:
            there = database.execute("SELECT 1 FROM containers WHERE name = ?", (candidate,))
            if there.fetchone() is None:
                return
            for old, new, part in ((name, aside, role), (candidate, name, "current")):
                database.execute(
                    "UPDATE containers SET name = ?, role = ? WHERE name = ?", (new, part, old)
                )

    def get(self, id: int) -> RolloutRecord | None:
        rows = self._rows("SELECT * FROM rollouts WHERE id = ?", id)
        return _rollout(rows[0]) if rows else None

    def latest(self, project: str, service: str) -> RolloutRecord | None:
        rows = self._rows(
            "SELECT * FROM rollouts WHERE project = ? AND service = ? ORDER BY id DESC LIMIT 1",
            project,
            service,
        )
        return _rollout(rows[0]) if rows else None

    def of_project(self, project: str) -> list[RolloutRecord]:
        """All rollouts of the project, the newest first."""
        rows = self._rows("SELECT * FROM rollouts WHERE project = ? ORDER BY id DESC", project)
        return [_rollout(row) for row in rows]

    def unfinished(self) -> list[RolloutRecord]:
        """What a daemon that ended has left under way, oldest first."""
        marks = ", ".join("?" * len(UNFINISHED))
        rows = self._rows(
            f"SELECT * FROM rollouts WHERE state IN ({marks}) ORDER BY id", *UNFINISHED
        )
        return [_rollout(row) for row in rows]


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _rollout(row: sqlite3.Row) -> RolloutRecord:
    raw = dict(row)
    parsed = {name: json.loads(raw[name]) for name in ("strategy", "old", "new")}
    return RolloutRecord(**{**raw, **parsed, "output": tuple(json.loads(raw["output"]))})
