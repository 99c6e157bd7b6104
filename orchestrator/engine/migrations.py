"""The schema of the state database, as the list of steps from each version to the next.

A released step is never changed; a new version adds one. `PRAGMA user_version` holds how many
have run.
"""

from __future__ import annotations

import sqlite3

from orchestrator.engine.errors import StoreError

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE projects (
        name TEXT PRIMARY KEY,
        working_dir TEXT NOT NULL,
        config_files TEXT NOT NULL,
        spec TEXT NOT NULL,
        digest TEXT NOT NULL,
        updated_at REAL NOT NULL
    );
    CREATE TABLE revisions (
        project TEXT NOT NULL,
        number INTEGER NOT NULL,
        digest TEXT NOT NULL,
        spec TEXT NOT NULL,
        applied_at REAL NOT NULL,
        PRIMARY KEY (project, number)
    );
    CREATE TABLE loads (
        directory TEXT NOT NULL,
        project TEXT NOT NULL,
        config_files TEXT NOT NULL,
        inputs TEXT NOT NULL,
        spec TEXT NOT NULL,
        used_at REAL NOT NULL,
        PRIMARY KEY (directory, project)
    );
    CREATE TABLE networks (
        name TEXT PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        key TEXT NOT NULL,
        project TEXT NOT NULL,
        spec TEXT NOT NULL,
        created_at REAL NOT NULL
    );
    CREATE TABLE containers (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        project TEXT NOT NULL,
        service TEXT NOT NULL,
        number INTEGER NOT NULL,
        oneoff INTEGER NOT NULL DEFAULT 0,
        source TEXT NOT NULL,
        spec TEXT NOT NULL,
        image TEXT NOT NULL,
        image_id TEXT NOT NULL,
        process TEXT NOT NULL,
        endpoints TEXT NOT NULL,
        ports TEXT NOT NULL,
        volumes TEXT NOT NULL,
        intent TEXT NOT NULL,
        created_at REAL NOT NULL,
        started_at REAL,
        finished_at REAL,
        exit_code INTEGER,
        error TEXT NOT NULL DEFAULT '',
        restarts INTEGER NOT NULL DEFAULT 0,
        restart_delay REAL NOT NULL DEFAULT 0,
        restart_at REAL,
        health TEXT
    );
    CREATE INDEX containers_by_project ON containers (project);
    """,
    """
    ALTER TABLE containers ADD COLUMN role TEXT NOT NULL DEFAULT 'current';
    CREATE TABLE rollouts (
        id INTEGER PRIMARY KEY,
        project TEXT NOT NULL,
        service TEXT NOT NULL,
        strategy TEXT NOT NULL,
        old TEXT NOT NULL,
        new TEXT NOT NULL,
        state TEXT NOT NULL,
        step TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '',
        output TEXT NOT NULL DEFAULT '[]',
        started_at REAL NOT NULL,
        deadline REAL NOT NULL,
        finished_at REAL
    );
    CREATE INDEX rollouts_by_service ON rollouts (project, service);
    """,
    """
    CREATE TABLE pulls (
        reference TEXT PRIMARY KEY,
        pulled_at REAL NOT NULL
    );
    """,
    """
    CREATE TABLE gitops_sources (
        name TEXT PRIMARY KEY,
        document TEXT NOT NULL,
        digest TEXT NOT NULL,
        suspended INTEGER NOT NULL DEFAULT 0,
        pinned INTEGER,
        settled INTEGER NOT NULL DEFAULT 1,
        attempted TEXT,
        applied TEXT,
        created_at REAL NOT NULL
    );
    CREATE TABLE gitops_inventory (
        project TEXT PRIMARY KEY,
        source TEXT NOT NULL,
        commit_id TEXT NOT NULL,
        spec TEXT NOT NULL,
        services TEXT NOT NULL,
        error TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE gitops_history (
        source TEXT NOT NULL,
        number INTEGER NOT NULL,
        commit_id TEXT NOT NULL,
        at REAL NOT NULL,
        outcome TEXT NOT NULL,
        subject TEXT NOT NULL,
        author TEXT NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        seconds REAL NOT NULL,
        projects TEXT,
        PRIMARY KEY (source, number)
    );
    CREATE TABLE settings (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    );
    """,
    """
    ALTER TABLE containers ADD COLUMN hooks_due INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE TABLE inheritance (
        project TEXT NOT NULL,
        service TEXT NOT NULL,
        number INTEGER NOT NULL,
        volumes TEXT NOT NULL,
        PRIMARY KEY (project, service, number)
    );
    """,
)


def migrate(database: sqlite3.Connection) -> None:
    """Bring the database to the newest version, each step in a transaction of its own.

    Raises StoreError where a later version of the program wrote it.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the state database has version {version}, this program knows {len(MIGRATIONS)}",
            hint="use the version of the program that wrote it, or a later one",
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        database.executescript(f"BEGIN;{script};PRAGMA user_version = {number};COMMIT;")
