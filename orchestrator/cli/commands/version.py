"""`bay version`: the command's version and, where one answers, the daemon's."""

from __future__ import annotations

from orchestrator.cli.options import Command, choice, flag
from orchestrator.cli.output import as_json
from orchestrator.cli.session import Session
from orchestrator.client import daemon
from orchestrator.client.errors import DaemonUnreachable
from orchestrator.version import VERSION


def run(session: Session, *, short: bool, format: str | None) -> int:
    if short:
        print(VERSION)
        return 0
    running = _daemon_version(session)
    if format == "json":
        as_json({"version": VERSION, "daemon": running})
        return 0
    print(f"bay version {VERSION}")
    if running is None:
        print("daemon: not running")
    else:
        print(f"daemon: version {running['version']}, pid {running['pid']}, {session.root}")
    return 0


def _daemon_version(session: Session) -> dict[str, object] | None:
    try:
        client = daemon.answering(session.run)
        found = client.get("/v1/version") if client else None
    except DaemonUnreachable:
        return None
    return found if isinstance(found, dict) else None


COMMAND = Command(
    "version",
    run,
    summary="Show the version of bay and of the running daemon",
    options=(
        flag("--short", help="Only the version number"),
        choice("-f", "--format", help="Output format", choices=("pretty", "json")),
    ),
)
