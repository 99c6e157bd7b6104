"""What has happened: events and operations, kept in a bounded SQLite file and told as they come.

It is apart from the state database: it is written often, and may be lost without harm. What is
published is written some tenths of a second later, together with what came meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.engine.events import BuildEvent, Event, EventBus, PullEvent
from orchestrator.engine.store import keep_private
from orchestrator.supervisor.docker_events import Endpoints, told

_log = logging.getLogger(__name__)

FILE_NAME = "journal.db"
KEPT_EVENTS = 20_000
KEPT_OPERATIONS = 500
GATHER = 0.2
MOST_WAITING = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, project TEXT NOT NULL, service TEXT NOT NULL,
    type TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_time ON events (at);
CREATE TABLE IF NOT EXISTS operations (
    number INTEGER PRIMARY KEY, project TEXT NOT NULL, command TEXT NOT NULL,
    revision INTEGER, started_at REAL NOT NULL, finished_at REAL NOT NULL,
    outcome TEXT NOT NULL, error TEXT NOT NULL, steps INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS operations_by_project ON operations (project, number);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One command on a project, once it has ended; `revision` is what it applied, if anything,
    `outcome` done, failed or canceled, `steps` how many its plans had. Times in seconds."""

    project: str
    command: str
    started_at: float
    finished_at: float
    outcome: str
    revision: int | None = None
    error: str = ""
    steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events are asked for; empty means all. Times in seconds since the epoch."""

    project: str | None = None
    services: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    since: float | None = None
    until: float | None = None

    def passes(self, event: dict[str, Any]) -> bool:
        return (
            self.project in (None, event["project"])
            and (not self.services or event.get("service", "") in self.services)
            and (not self.types or event["type"] in self.types)
            and (self.since is None or event["at"] >= self.since)
            and (self.until is None or event["at"] <= self.until)
        )


class Feed:
    """The events since it was opened; a slow reader loses the oldest."""

    def __init__(self) -> None:
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._ready = asyncio.Event()

    def put(self, number: int, event: dict[str, Any]) -> None:
        if len(self._events) >= MOST_WAITING:
            del self._events[0]
        self._events.append((number, event))
        self._ready.set()

    async def get(self) -> tuple[int, dict[str, Any]]:
        while not self._events:
            self._ready.clear()
            await self._ready.wait()
        return self._events.pop(0)


class Journal:
    """Follows `bus` from `open` to `close`, in one event loop; may be read from any thread.

    `endpoints` gives the networks of a container by its id, for Docker's connect events.
    """

    def __init__(self, root: Path, bus: EventBus, endpoints: Endpoints) -> None:
        self._bus = bus
        self._endpoints = endpoints
        self._lock = threading.Lock()
        self._database = _open(root / FILE_NAME)
        (last,) = self._database.execute("SELECT max(seq) FROM events").fetchone()
        self._last = int(last or 0)
        self._closed = False
        self._waiting: deque[tuple[int, dict[str, Any]]] = deque()
        self._feeds: set[Feed] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._listening = contextlib.ExitStack()

    def open(self) -> None:
        self._listening.enter_context(self._bus.listen(self._on_event))

    def close(self) -> None:
        self._listening.close()
        if self._timer is not None:
            self._timer.cancel()
        self._flush_safely()
        # A thread may be writing still, and what is published from now on is nobody's.
        with self._lock:
            self._closed = True
            self._database.close()

    def publish(self, event: dict[str, Any], *, keep: bool = True) -> None:
        """Tell an event (`type`, `project`, `at`, …) to all feeds, and keep it."""
        self._last += 1
        for feed in self._feeds:
            feed.put(self._last, event)
        if keep:
            self._waiting.append((self._last, event))
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(GATHER, self._flush_soon)

    @contextlib.contextmanager
    def feed(self) -> Iterator[Feed]:
        feed = Feed()
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.discard(feed)

    def events(self, wanted: Filter) -> list[tuple[int, dict[str, Any]]]:
        """What is kept of that, oldest first, each with its number. Blocking."""
        self._flush_safely()
        query = "SELECT seq, body FROM events WHERE at >= ? AND at <= ?"
        arguments: list[Any] = [wanted.since or 0.0]
        arguments.append(float("inf") if wanted.until is None else wanted.until)
        for column, values in (
            ("project", {wanted.project} if wanted.project is not None else ()),
            ("service", wanted.services),
            ("type", wanted.types),
        ):
            if values:
                query += f" AND {column} IN ({', '.join('?' * len(values))})"
                arguments += values
        with self._lock:
            rows = self._database.execute(query + " ORDER BY seq", arguments).fetchall()
        return [(row[0], json.loads(row[1])) for row in rows]

    def record(self, operation: Operation) -> None:
        """Keep that an operation has ended. Blocking; where that fails, the log says so."""
        try:
            self._record(operation)
        except sqlite3.Error as exc:
            # Whoever waits for the operation's end must hear of it on a full disk, too.
            _log.error("write the journal: %s", exc)

    def _record(self, operation: Operation) -> None:
        with self._lock, self._database:
            cursor = self._database.execute(
                "INSERT INTO operations (project, command, revision, started_at, finished_at,"
                " outcome, error, steps) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(operation.project, operation.command, operation.revision),
                    *(operation.started_at, operation.finished_at),
                    *(operation.outcome, operation.error, operation.steps),
                ),
            )
            self._database.execute(
                "DELETE FROM operations WHERE number <= ?",
                ((cursor.lastrowid or 0) - KEPT_OPERATIONS,),
            )

    def operations(self, project: str) -> list[Operation]:
        """The project's operations, oldest first. Blocking."""
        with self._lock:
            rows = self._database.execute(
                "SELECT project, command, started_at, finished_at, outcome, revision, error, steps"
                " FROM operations WHERE project = ? ORDER BY number",
                (project,),
            ).fetchall()
        return [
            Operation(
                project=row[0],
                command=row[1],
                started_at=row[2],
                finished_at=row[3],
                outcome=row[4],
                revision=row[5],
                error=row[6],
                steps=row[7],
            )
            for row in rows
        ]

    def flush(self) -> None:
        """Write what waits. Blocking."""
        with self._lock:
            waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if waiting and not self._closed:
                self._write(waiting)

    def _write(self, waiting: list[tuple[int, dict[str, Any]]]) -> None:
        with self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?)", _rows(waiting)
            )
            self._database.execute(
                "DELETE FROM events WHERE seq <= ?", (waiting[-1][0] - KEPT_EVENTS,)
            )

    def _flush_soon(self) -> None:
        self._timer = None
        asyncio.get_running_loop().run_in_executor(None, self._flush_safely)

    def _flush_safely(self) -> None:
        try:
            self.flush()
        except sqlite3.Error as exc:
            # A full disk must not end the daemon for want of a diary.
            _log.error("write the journal: %s", exc)

    def _on_event(self, event: Event) -> None:
        # The progress of builds and pulls is for who follows it; there is no end of it.
        keep = not isinstance(event, BuildEvent | PullEvent)
        for shown in told(event, self._endpoints):
            self.publish(shown, keep=keep)


def _rows(events: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[tuple[Any, ...]]:
    for number, event in events:
        # In ASCII: a name that is no text cannot be written down otherwise.
        body = json.dumps(event, separators=(",", ":"))
        where = (event["at"], event["project"], event.get("service", ""))
        yield (number, *where, event["type"], body)


def _open(path: Path) -> sqlite3.Connection:
    """A journal that is damaged is begun anew beside the old one: nothing depends on it."""
    try:
        return _connect(path)
    except sqlite3.DatabaseError as exc:
        aside = path.with_suffix(".damaged")
        _log.error("the journal is damaged (%s), it is kept as %s", exc, aside)
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    keep_private(path)
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA cache_size = -256")  # KiB; 2 MB otherwise
        database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database
