"""What the state database can be made from again: a copy of each record beside its files.

`<root>/containers/<id>/record.json` holds what is lasting of a container's record, and
`<root>/projects/<name>.json` a project as it was last applied with its networks. They are
written after the database, and read only where that does not know what runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.engine.errors import EngineError, StoreError, chain
from orchestrator.engine.records import NetworkRecord, ProjectRecord
from orchestrator.engine.store import FILE_NAME, Store
from runtime.linux import files

if TYPE_CHECKING:
    from orchestrator.engine.host import Host

_log = logging.getLogger(__name__)

VERSION = 1
RECORD = "record.json"
_LONGEST = 200


def open_store(root: Path) -> Store:
    """The state database; one that is damaged is set aside, and a new one begun.

    Raises StoreError where it cannot be used for another reason: it is of a later version, or
    the disk does not play along.
    """
    try:
        store = Store(root)
    except StoreError as exc:
        cause = exc.__cause__
        if not isinstance(cause, sqlite3.DatabaseError) or isinstance(
            cause, sqlite3.OperationalError
        ):
            raise
        return _begin_anew(root, str(cause))
    try:
        damage = store.damage()
    except sqlite3.DatabaseError as exc:
        damage = str(exc)
    if not damage:
        return store
    store.close()
    return _begin_anew(root, damage)


def _begin_anew(root: Path, damage: str) -> Store:
    path = root / FILE_NAME
    aside = path.with_name(f"{FILE_NAME}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    _log.error(
        "the state database is damaged (%s): it is kept as %s, and a new one is made from the "
        "files of the containers",
        damage,
        aside,
    )
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    return Store(root)


class Keepsakes:
    """Writes the copies, each only when it changes, and adopts what only they know. Blocking."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._projects = host.root / "projects"
        self._written: dict[Path, int] = {}

    def keep_container(self, id: str) -> None:
        """Make the copy be what the database has."""
        row = self._host.store.container_row(id)
        if row is not None:
            self._write(self._record(id), {"version": VERSION, "container": row})

    def keep_project(self, name: str) -> None:
        """Make the copy be what the database has, or gone with the project's last container."""
        store = self._host.store
        path = self._project(name)
        project = store.project(name)
        if project is None or not store.has_containers(name):
            path.unlink(missing_ok=True)
            self._written.pop(path, None)
            return
        networks = [asdict(n) for n in store.networks() if n.project == name]
        self._projects.mkdir(mode=0o700, exist_ok=True)
        self._write(path, {"version": VERSION, "project": asdict(project), "networks": networks})

    def adopt(self) -> list[str]:
        """Put on record the containers that the runtime knows and the database does not, with
        their projects and networks; what was done, a line each."""
        host = self._host
        if self._projects.exists():
            files.remove_drafts(self._projects)
        known = {record.id for record in host.store.containers()}
        done: list[str] = []
        projects: set[str] = set()
        for state in host.containers.list():
            # Nobody else writes these, so that a young draft is a dead daemon's, too.
            with contextlib.suppress(FileNotFoundError):
                files.remove_drafts(self._record(state.id).parent, of=RECORD)
            if state.id in known:
                continue
            document = _read(self._record(state.id))
            if document is None:
                done.append(f"container {state.id[:12]} is nobody's: its files name no project")
                continue
            try:
                record = host.store.adopt_container(document["container"])
            except (EngineError, KeyError) as exc:
                done.append(f"container {state.id[:12]} cannot be adopted: {chain(exc)}")
                continue
            projects.add(record.project)
            done.append(f"container {record.name} was not on record, it is adopted")
        for name in sorted(projects):
            self._adopt_project(name)
        return done

    def _adopt_project(self, name: str) -> None:
        store = self._host.store
        document = _read(self._project(name))
        if document is None:
            return
        if store.project(name) is None:
            project = document["project"]
            store.put_project(
                ProjectRecord(**{**project, "config_files": tuple(project["config_files"])})
            )
        standing = {network.id for network in self._host.networks.list()}
        for network in document["networks"]:
            if network["id"] in standing and store.network(network["name"]) is None:
                store.put_network(NetworkRecord(**network))

    def _project(self, name: str) -> Path:
        # A name may be longer than a file's.
        short = name if len(name) <= _LONGEST else hashlib.sha256(name.encode()).hexdigest()
        return self._projects / f"{short}.json"

    def _record(self, id: str) -> Path:
        return self._host.containers.log_path(id).with_name(RECORD)

    def _write(self, path: Path, document: dict[str, Any]) -> None:
        content = json.dumps(document, separators=(",", ":")).encode()
        if self._written.get(path) == hash(content) and path.exists():
            return
        # The container, and its directory with it, may go at any time.
        with contextlib.suppress(FileNotFoundError):
            files.write_atomically(path, content, mode=0o600, durable=False)
            self._written[path] = hash(content)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None
