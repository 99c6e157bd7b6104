"""The registry's database: connections, transactions, schema.

SQLite in WAL mode with full synchronisation: what a client was told to be stored survives a
power cut. Connections belong to threads; writing transactions take the write lock at their
beginning, so that a check and what follows from it are one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import Unsupported

VERSION = 1
_BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    condemned INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE links (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    seen_at REAL NOT NULL,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX links_by_digest ON links (digest);

CREATE TABLE manifests (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    content BLOB NOT NULL,
    artifact_type TEXT NOT NULL,
    annotations TEXT NOT NULL,
    subject TEXT NOT NULL,
    pushed_at REAL NOT NULL,
    pulled_at REAL NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX manifests_by_subject ON manifests (repository, subject) WHERE subject != '';

CREATE TABLE parts (
    repository TEXT NOT NULL,
    manifest TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    is_manifest INTEGER NOT NULL,
    PRIMARY KEY (repository, manifest, digest)
) WITHOUT ROWID;
CREATE INDEX parts_by_digest ON parts (repository, digest);

CREATE TABLE tags (
    repository TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    pushed_at REAL NOT NULL,
    checked_at REAL NOT NULL,
    PRIMARY KEY (repository, name)
) WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags (repository, digest);
"""


class Database:
    """The database file `path`; safe for several threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._mutex = threading.Lock()
        with self.writing() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise Unsupported(
                    f"{path} was written by a newer version",
                    hint="serve it with that version",
                )
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")

    def connection(self) -> sqlite3.Connection:
        """This thread's connection; each statement alone is a transaction."""
        known: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if known is None:
            known = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            known.execute("PRAGMA journal_mode = WAL")
            known.execute("PRAGMA synchronous = FULL")
            self._local.connection = known
            with self._mutex:
                self._connections.append(known)
        return known

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its first moment."""
        connection = self.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connections of all threads; none may be in use."""
        with self._mutex:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
