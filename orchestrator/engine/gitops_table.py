"""The tables of git sources: what each is, what it came to, and what it has put on this host.

What a source has applied is known from here alone, never from what runs. A project belongs to
one source: the inventory's key says so.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from orchestrator.engine.errors import EngineError

Outcome = Literal["applying", "applied", "failed", "reverting", "rolled-back", "planned"]
"""What became of a revision. `applying` is also what a daemon that was killed leaves; `failed`
has changed nothing, or has nothing before it to go back to; `reverting` has failed half-way and
is being taken back, `rolled-back` has been; `planned` is dry."""

KEPT_ATTEMPTS = 100
KEPT_REVISIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The last revision that was tried: `source` is the digest of the definition it was tried
    with, `at` in seconds since the epoch, `reason` the word for a failure."""

    commit: str
    source: str
    at: float
    outcome: Outcome
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The last revision that proved healthy; `number` is its place in the history."""

    commit: str
    source: str
    at: float
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """A source as it is on record.

    `document` is the canonical definition; `pinned` the number of the revision that a person
    went back to. `settled` is False from the moment something is applied until it is known that
    what stands is what `applied` says.
    """

    name: str
    document: Mapping[str, Any]
    digest: str
    suspended: bool
    pinned: int | None
    settled: bool
    attempted: Attempt | None
    applied: Applied | None
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Belonging:
    """A project that a source has put on this host, or was about to.

    `services` are all that may be there because of the source, those of a revision that failed
    half-way included; `spec` is canonical; `error` says why it could not be removed.
    """

    project: str
    source: str
    commit: str
    spec: Mapping[str, Any]
    services: frozenset[str]
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One entry of a source's history: an attempt that has ended. `projects` are the canonical
    specs by name, in the order of their application, where the revision proved healthy and is
    kept, else None."""

    source: str
    commit: str
    at: float
    outcome: Outcome
    subject: str = ""
    author: str = ""
    reason: str = ""
    message: str = ""
    seconds: float = 0.0
    projects: Mapping[str, Any] | None = None
    number: int = field(default=0)


class ProjectClaimed(EngineError):
    """A project belongs to another source."""

    def __init__(self, project: str, owner: str) -> None:
        super().__init__(
            f"project {project} belongs to source {owner}",
            hint=f"give it another name, or let go of it there (bay gitops rm {owner} --keep)",
        )
        self.project = project
        self.owner = owner


class GitopsTable:
    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[sqlite3.Connection]],
        rows: Callable[..., list[sqlite3.Row]],
    ) -> None:
        self._transaction = transaction
        self._rows = rows

    def put(
        self, name: str, document: Mapping[str, Any], digest: str, *, suspended: bool, now: float
    ) -> None:
        """Record a source, or the new definition of one."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO gitops_sources (name, document, digest, suspended, created_at)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET document ="
                " excluded.document, digest = excluded.digest, suspended = excluded.suspended",
                (name, _dump(document), digest, suspended, now),
            )

    def get(self, name: str) -> SourceRecord | None:
        rows = self._rows("SELECT * FROM gitops_sources WHERE name = ?", name)
        return _source(rows[0]) if rows else None

    def all(self) -> list[SourceRecord]:
        return [_source(row) for row in self._rows("SELECT * FROM gitops_sources ORDER BY name")]

    def update(self, name: str, **changes: bool | int | None) -> None:
        """Change `suspended`, `pinned` or `settled`."""
        assignments = ", ".join(f"{column} = :{column}" for column in changes)
        with self._transaction() as database:
            database.execute(
                f"UPDATE gitops_sources SET {assignments} WHERE name = :_name",
                {**changes, "_name": name},
            )

    def remove(self, name: str) -> None:
        """Forget a source, what it owns and its history; what it owns is nobody's from then on."""
        with self._transaction() as database:
            for table in ("gitops_inventory", "gitops_history"):
                database.execute(f"DELETE FROM {table} WHERE source = ?", (name,))
            database.execute("DELETE FROM gitops_sources WHERE name = ?", (name,))

    def begin(self, name: str, attempt: Attempt, projects: Mapping[str, Any]) -> None:
        """Note that this is about to be applied, and take the projects into the inventory.

        Raises ProjectClaimed, having changed nothing, where one is another source's.
        """
        with self._transaction() as database:
            for project, spec in projects.items():
                _claim(database, name, project, attempt.commit, spec)
            database.execute(
                "UPDATE gitops_sources SET attempted = ?, settled = 0 WHERE name = ?",
                (_dump(asdict(attempt)), name),
            )

    def succeed(self, passage: Passage, digest: str) -> None:
        """Note that a revision proved healthy, and is what is to stand; a source that is pinned
        is pinned to it."""
        with self._transaction() as database:
            number = _enter(database, passage)
            applied = Applied(commit=passage.commit, source=digest, at=passage.at, number=number)
            database.execute(
                "UPDATE gitops_sources SET attempted = ?, applied = ?, settled = 0,"
                " pinned = CASE WHEN pinned IS NULL THEN NULL ELSE ? END WHERE name = ?",
                (
                    _dump(asdict(_attempt(passage, digest))),
                    _dump(asdict(applied)),
                    number,
                    passage.source,
                ),
            )
            _trim(database, passage.source, number)

    def fail(self, passage: Passage, digest: str) -> None:
        """Note how an attempt ended that is not what stands from now on. A return that a person
        asked for is given up with it."""
        with self._transaction() as database:
            _enter(database, passage)
            database.execute(
                "UPDATE gitops_sources SET attempted = ?, pinned = CASE WHEN pinned IS NULL"
                " THEN NULL ELSE json_extract(applied, '$.number') END WHERE name = ?",
                (_dump(asdict(_attempt(passage, digest))), passage.source),
            )

    def settle(self, name: str, commit: str, projects: Mapping[str, Any]) -> None:
        """Note that these projects stand as they are to; what failed has been taken back."""
        with self._transaction() as database:
            for project, spec in projects.items():
                _write(database, name, project, commit, spec, spec["services"])
            database.execute(
                "UPDATE gitops_sources SET settled = 1, attempted = CASE"
                " WHEN json_extract(attempted, '$.outcome') = 'reverting'"
                " THEN json_set(attempted, '$.outcome', 'rolled-back') ELSE attempted END"
                " WHERE name = ?",
                (name,),
            )
            database.execute(
                "UPDATE gitops_history SET outcome = 'rolled-back'"
                " WHERE source = ? AND outcome = 'reverting'",
                (name,),
            )

    def reopen(self, name: str) -> None:
        """Have the revision that was tried last count as never tried."""
        with self._transaction() as database:
            database.execute(
                "UPDATE gitops_sources SET attempted = json_set(attempted, '$.source', '')"
                " WHERE name = ? AND attempted IS NOT NULL",
                (name,),
            )

    def inventory(self, source: str | None = None) -> list[Belonging]:
        """What a source owns, or all of them do, by project."""
        query = "SELECT * FROM gitops_inventory"
        rows = (
            self._rows(f"{query} ORDER BY project")
            if source is None
            else self._rows(f"{query} WHERE source = ? ORDER BY project", source)
        )
        return [_belonging(row) for row in rows]

    def owner(self, project: str) -> str | None:
        rows = self._rows("SELECT source FROM gitops_inventory WHERE project = ?", project)
        return str(rows[0]["source"]) if rows else None

    def disown(self, project: str) -> None:
        with self._transaction() as database:
            database.execute("DELETE FROM gitops_inventory WHERE project = ?", (project,))

    def hold(self, project: str, error: str) -> None:
        """Note why a project that has left is still there."""
        with self._transaction() as database:
            database.execute(
                "UPDATE gitops_inventory SET error = ? WHERE project = ?", (error, project)
            )

    def history(self, source: str) -> list[Passage]:
        """The newest last."""
        rows = self._rows("SELECT * FROM gitops_history WHERE source = ? ORDER BY number", source)
        return [_passage(row) for row in rows]

    def passage(self, source: str, number: int) -> Passage | None:
        rows = self._rows(
            "SELECT * FROM gitops_history WHERE source = ? AND number = ?", source, number
        )
        return _passage(rows[0]) if rows else None

    def put_setting(self, name: str, value: str) -> None:
        """Keep a setting of the instance; "" is none."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def setting(self, name: str) -> str:
        rows = self._rows("SELECT value FROM settings WHERE name = ?", name)
        return str(rows[0]["value"]) if rows else ""


def _claim(
    database: sqlite3.Connection, source: str, project: str, commit: str, spec: Mapping[str, Any]
) -> None:
    found = database.execute(
        "SELECT * FROM gitops_inventory WHERE project = ?", (project,)
    ).fetchone()
    if found is not None and found["source"] != source:
        raise ProjectClaimed(project, found["source"])
    before = json.loads(found["services"]) if found is not None else []
    _write(database, source, project, commit, spec, {*before, *spec["services"]})


def _write(
    database: sqlite3.Connection,
    source: str,
    project: str,
    commit: str,
    spec: Mapping[str, Any],
    services: Iterable[str],
) -> None:
    database.execute(
        "INSERT OR REPLACE INTO gitops_inventory VALUES (?, ?, ?, ?, ?, '')",
        (project, source, commit, _dump(spec), json.dumps(sorted(services))),
    )


def _attempt(passage: Passage, digest: str) -> Attempt:
    return Attempt(
        commit=passage.commit,
        source=digest,
        at=passage.at,
        outcome=passage.outcome,
        reason=passage.reason,
        message=passage.message,
    )


def _enter(database: sqlite3.Connection, passage: Passage) -> int:
    last = database.execute(
        "SELECT max(number) FROM gitops_history WHERE source = ?", (passage.source,)
    ).fetchone()[0]
    number = int(last or 0) + 1
    database.execute(
        "INSERT INTO gitops_history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            passage.source,
            number,
            passage.commit,
            passage.at,
            passage.outcome,
            passage.subject,
            passage.author,
            passage.reason,
            passage.message,
            passage.seconds,
            # A list, as the order counts in which they are applied.
            None if passage.projects is None else _dump([*passage.projects.values()]),
        ),
    )
    database.execute(
        "DELETE FROM gitops_history WHERE source = ? AND number <= ? AND projects IS NULL",
        (passage.source, number - KEPT_ATTEMPTS),
    )
    return number


def _trim(database: sqlite3.Connection, source: str, newest: int) -> None:
    """Let go of the specs of old revisions; the one that was entered last always stays."""
    database.execute(
        "UPDATE gitops_history SET projects = NULL WHERE source = ? AND number < ?"
        " AND number NOT IN (SELECT number FROM gitops_history WHERE source = ?"
        " AND projects IS NOT NULL ORDER BY number DESC LIMIT ?)",
        (source, newest, source, KEPT_REVISIONS),
    )


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _source(row: sqlite3.Row) -> SourceRecord:
    attempted, applied = row["attempted"], row["applied"]
    return SourceRecord(
        name=row["name"],
        document=json.loads(row["document"]),
        digest=row["digest"],
        suspended=bool(row["suspended"]),
        pinned=row["pinned"],
        settled=bool(row["settled"]),
        attempted=Attempt(**json.loads(attempted)) if attempted else None,
        applied=Applied(**json.loads(applied)) if applied else None,
        created_at=row["created_at"],
    )


def _belonging(row: sqlite3.Row) -> Belonging:
    return Belonging(
        project=row["project"],
        source=row["source"],
        commit=row["commit_id"],
        spec=json.loads(row["spec"]),
        services=frozenset(json.loads(row["services"])),
        error=row["error"],
    )


def _passage(row: sqlite3.Row) -> Passage:
    projects = row["projects"]
    return Passage(
        source=row["source"],
        number=row["number"],
        commit=row["commit_id"],
        at=row["at"],
        outcome=row["outcome"],
        subject=row["subject"],
        author=row["author"],
        reason=row["reason"],
        message=row["message"],
        seconds=row["seconds"],
        projects=None
        if projects is None
        else {spec["name"]: spec for spec in json.loads(projects)},
    )
