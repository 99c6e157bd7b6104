"""The state database: projects, revisions, loads, networks and containers in one SQLite file.

One connection, used from any thread under a lock; every method is one transaction. The
database is in WAL mode, so that a reader of another process never blocks it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from orchestrator.engine.container_rows import (
    FIELDS,
    LASTING_FIELDS,
    Decoded,
    dump,
    encode,
    encode_all,
)
from orchestrator.engine.errors import NameTaken, StoreError
from orchestrator.engine.gitops_table import GitopsTable
from orchestrator.engine.migrations import migrate
from orchestrator.engine.records import (
    ContainerRecord,
    Load,
    NetworkRecord,
    ProjectRecord,
    Revision,
)
from orchestrator.engine.rollout_table import RolloutTable

FILE_NAME = "state.db"
KEPT_REVISIONS = 50


def keep_private(database: Path) -> None:
    """Make the file of a database its owner's alone before anything is in it.

    SQLite gives the files beside it, where everything new is written first, the same mode.
    """
    os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            database.with_name(database.name + suffix).chmod(0o600)


class Store:
    """Opens, and if need be creates or migrates, the database below `root`.

    Raises StoreError where the file is no database of ours.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / FILE_NAME
        self._lock = threading.RLock()
        self._decoded = Decoded()
        try:
            keep_private(self.path)
        except OSError as exc:
            raise StoreError(f"open {self.path}") from exc
        self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._database.row_factory = sqlite3.Row
            self._database.execute("PRAGMA journal_mode = WAL")
            # WAL with NORMAL loses no consistency and, on power loss, at most the last moments;
            # what runs is read again from the runtime in any case.
            self._database.execute("PRAGMA synchronous = NORMAL")
            # In KiB: containers are kept decoded, and the kernel caches the file.
            self._database.execute("PRAGMA cache_size = -512")
            migrate(self._database)
        except sqlite3.Error as exc:
            self._database.close()
            raise StoreError(f"open {self.path}") from exc
        except BaseException:
            self._database.close()
            raise
        self.rollouts = RolloutTable(self._transaction, self._rows)
        self.gitops = GitopsTable(self._transaction, self._rows)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Projects

    def put_project(self, record: ProjectRecord) -> int:
        """Record what is applied; the result is its revision, a new one if the digest differs
        from the last."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO projects VALUES (?, ?, ?, ?, ?, ?)",
                (
                    record.name,
                    record.working_dir,
                    json.dumps(record.config_files),
                    dump(record.spec),
                    record.digest,
                    record.updated_at,
                ),
            )
            last = database.execute(
                "SELECT number, digest FROM revisions WHERE project = ?"
                " ORDER BY number DESC LIMIT 1",
                (record.name,),
            ).fetchone()
            if last is not None and last["digest"] == record.digest:
                return int(last["number"])
            number = last["number"] + 1 if last is not None else 1
            database.execute(
                "INSERT INTO revisions VALUES (?, ?, ?, ?, ?)",
                (record.name, number, record.digest, dump(record.spec), record.updated_at),
            )
            database.execute(
                "DELETE FROM revisions WHERE project = ? AND number <= ?",
                (record.name, number - KEPT_REVISIONS),
            )
            return int(number)

    def project(self, name: str) -> ProjectRecord | None:
        rows = self._rows("SELECT * FROM projects WHERE name = ?", name)
        return _project(rows[0]) if rows else None

    def projects(self) -> list[ProjectRecord]:
        return [_project(row) for row in self._rows("SELECT * FROM projects ORDER BY name")]

    def remove_project(self, name: str) -> None:
        """Forget the project; its revisions stay, so that its history survives a down."""
        with self._transaction() as database:
            database.execute("DELETE FROM projects WHERE name = ?", (name,))

    def revisions(self, project: str) -> list[Revision]:
        """The project's revisions, oldest first."""
        rows = self._rows("SELECT * FROM revisions WHERE project = ? ORDER BY number", project)
        return [
            Revision(
                project=row["project"],
                number=row["number"],
                digest=row["digest"],
                spec=json.loads(row["spec"]),
                applied_at=row["applied_at"],
            )
            for row in rows
        ]

    # Loads

    def put_load(self, load: Load) -> None:
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO loads VALUES (?, ?, ?, ?, ?, ?)",
                (
                    load.directory,
                    load.project,
                    json.dumps(load.config_files),
                    dump(load.inputs),
                    dump(load.spec),
                    load.used_at,
                ),
            )

    def loads(self, directory: str) -> list[Load]:
        """What was loaded from `directory`, the last used first."""
        rows = self._rows(
            "SELECT * FROM loads WHERE directory = ? ORDER BY used_at DESC", directory
        )
        return [
            Load(
                directory=row["directory"],
                project=row["project"],
                config_files=tuple(json.loads(row["config_files"])),
                inputs=json.loads(row["inputs"]),
                spec=json.loads(row["spec"]),
                used_at=row["used_at"],
            )
            for row in rows
        ]

    # Pulls

    def put_pull(self, reference: str, at: float) -> None:
        """Remember when this reference was last asked for at its registry."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO pulls VALUES (?, ?)", (reference, at))

    def pulls(self) -> dict[str, float]:
        rows = self._rows("SELECT reference, pulled_at FROM pulls")
        return {row["reference"]: row["pulled_at"] for row in rows}

    # Networks

    def put_network(self, record: NetworkRecord) -> None:
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO networks VALUES (?, ?, ?, ?, ?, ?)",
                (
                    record.name,
                    record.id,
                    record.key,
                    record.project,
                    dump(record.spec),
                    record.created_at,
                ),
            )

    def network(self, name: str) -> NetworkRecord | None:
        rows = self._rows("SELECT * FROM networks WHERE name = ?", name)
        return _network(rows[0]) if rows else None

    def networks(self) -> list[NetworkRecord]:
        return [_network(row) for row in self._rows("SELECT * FROM networks ORDER BY name")]

    def remove_network(self, name: str) -> None:
        with self._transaction() as database:
            database.execute("DELETE FROM networks WHERE name = ?", (name,))

    # Containers

    def add_container(self, record: ContainerRecord) -> None:
        """Record a new container; raises NameTaken."""
        marks = ", ".join(f":{name}" for name in FIELDS)
        with self._transaction() as database:
            taken = database.execute(
                "SELECT project FROM containers WHERE name = ?", (record.name,)
            ).fetchone()
            if taken is not None:
                raise NameTaken(record.name, taken["project"])
            database.execute(
                f"INSERT INTO containers ({', '.join(FIELDS)}) VALUES ({marks})",
                encode_all(record),
            )

    def container_row(self, id: str) -> dict[str, Any] | None:
        """What is lasting of a container's record, as plain values by column: all that cannot be
        read from the runtime."""
        rows = self._rows("SELECT * FROM containers WHERE id = ?", id)
        return {name: rows[0][name] for name in LASTING_FIELDS} if rows else None

    def adopt_container(self, row: Mapping[str, Any]) -> ContainerRecord:
        """Put back a record that `container_row` gave, of this version or another one. Raises
        StoreError where the row is no such thing, NameTaken."""
        known = {name: row[name] for name in LASTING_FIELDS if name in row}
        known["ports"] = "[]"
        marks = ", ".join(f":{name}" for name in known)
        try:
            with self._transaction() as database:
                database.execute(
                    f"INSERT INTO containers ({', '.join(known)}) VALUES ({marks})", known
                )
            return next(r for r in self.containers() if r.id == known["id"])
        except (sqlite3.Error, KeyError, ValueError, TypeError) as exc:
            raise StoreError(f"adopt container {known.get('name', '')}") from exc

    def damage(self) -> str:
        """What is wrong with the file, "" where it is whole."""
        found = self._rows("PRAGMA quick_check(1)")
        return "" if found[0][0] == "ok" else str(found[0][0])

    def update_container(self, id: str, **changes: Any) -> ContainerRecord | None:
        """Change some of a container's fields; the result is None where it is not on record."""
        with self._transaction() as database:
            if changes:
                encoded = {name: encode(name, value) for name, value in changes.items()}
                assignments = ", ".join(f"{name} = :{name}" for name in encoded)
                database.execute(
                    f"UPDATE containers SET {assignments} WHERE id = :_id", {**encoded, "_id": id}
                )
            row = database.execute("SELECT * FROM containers WHERE id = ?", (id,)).fetchone()
        return self._decoded.record(row) if row is not None else None

    def container(self, id: str) -> ContainerRecord | None:
        rows = self._rows("SELECT * FROM containers WHERE id = ?", id)
        return self._decoded.record(rows[0]) if rows else None

    def container_named(self, name: str) -> ContainerRecord | None:
        rows = self._rows("SELECT * FROM containers WHERE name = ?", name)
        return self._decoded.record(rows[0]) if rows else None

    def containers(self, project: str | None = None) -> list[ContainerRecord]:
        """All containers, or those of a project, by service, number and name."""
        order = "ORDER BY service, number, name"
        rows = (
            self._rows(f"SELECT * FROM containers {order}")
            if project is None
            else self._rows(f"SELECT * FROM containers WHERE project = ? {order}", project)
        )
        return [self._decoded.record(row) for row in rows]

    def has_containers(self, project: str) -> bool:
        return bool(self._rows("SELECT 1 FROM containers WHERE project = ? LIMIT 1", project))

    def oneoffs(self) -> list[ContainerRecord]:
        """The containers of `run`, of all projects."""
        return [
            self._decoded.record(row) for row in self._rows("SELECT * FROM containers WHERE oneoff")
        ]

    def upstreams(self) -> dict[str, tuple[str, ...]]:
        """The name servers that services name for themselves, by the container's id."""
        rows = self._rows(
            "SELECT id, json_extract(spec, '$.service.dns') AS dns FROM containers"
            " WHERE json_extract(spec, '$.service.dns') IS NOT NULL"
        )
        return {row["id"]: tuple(json.loads(row["dns"])) for row in rows}

    def links(self) -> dict[str, tuple[str, ...]]:
        """The links of services (NAME or NAME:ALIAS), by the container's id."""
        rows = self._rows(
            "SELECT id, json_extract(spec, '$.service.links') AS links,"
            " json_extract(spec, '$.service.external_links') AS others FROM containers"
            " WHERE links IS NOT NULL OR others IS NOT NULL"
        )
        return {
            row["id"]: (*json.loads(row["links"] or "[]"), *json.loads(row["others"] or "[]"))
            for row in rows
        }

    def remove_container(self, id: str) -> None:
        with self._transaction() as database:
            database.execute("DELETE FROM containers WHERE id = ?", (id,))
        self._decoded.forget(id)

    def bequeath(self, id: str) -> None:
        """Write down that the container's anonymous volumes are its successor's."""
        with self._transaction() as database:
            # What it never came to have of its predecessor's stays as it is.
            database.execute(
                "INSERT INTO inheritance SELECT project, service, number, volumes"
                " FROM containers WHERE id = ? ON CONFLICT DO UPDATE"
                " SET volumes = json_patch(volumes, excluded.volumes)",
                (id,),
            )

    def inheritance(self, project: str) -> dict[tuple[str, int], dict[str, str]]:
        """The anonymous volumes, by target, that replicas which were removed have left to their
        successors: by service and number."""
        rows = self._rows("SELECT * FROM inheritance WHERE project = ?", project)
        return {(row["service"], row["number"]): json.loads(row["volumes"]) for row in rows}

    def forget_inheritance(
        self, project: str, service: str | None = None, number: int | None = None
    ) -> None:
        """It has been taken over, or nobody will: the project's, a service's or a replica's."""
        with self._transaction() as database:
            database.execute(
                "DELETE FROM inheritance WHERE project = ? AND service = coalesce(?, service)"
                " AND number = coalesce(?, number)",
                (project, service, number),
            )

    def _rows(self, query: str, *arguments: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(query, arguments).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; raises StoreError where the disk does not play along."""
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except BaseException as exc:
                # A commit that finds no room leaves the transaction open.
                if self._database.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")
                if isinstance(exc, sqlite3.Error):
                    raise StoreError("write the state database") from exc
                raise


def _project(row: sqlite3.Row) -> ProjectRecord:
    return ProjectRecord(
        name=row["name"],
        working_dir=row["working_dir"],
        config_files=tuple(json.loads(row["config_files"])),
        spec=json.loads(row["spec"]),
        digest=row["digest"],
        updated_at=row["updated_at"],
    )


def _network(row: sqlite3.Row) -> NetworkRecord:
    return NetworkRecord(**{**dict(row), "spec": json.loads(row["spec"])})
