"""`bay rollout`: how services are brought to a new form step by step, and back."""

from __future__ import annotations

import time
from typing import Any

from orchestrator.cli import operation, output
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, Group, choice
from orchestrator.cli.session import Session
from orchestrator.client.http import quote


def _status(session: Session, *, format: str | None, service: str | None) -> int:
    """The latest rollout of each service; exit status 1 where one has failed."""
    latest: dict[str, dict[str, Any]] = {}
    for rollout in _found(session, service):
        latest.setdefault(rollout["service"], rollout)
    if format == "json":
        output.as_json(list(latest.values()))
    elif not latest:
        print("no rollout")
    else:
        for rollout in latest.values():
            reason = f": {rollout['reason']}" if rollout["reason"] else ""
            print(f"{rollout['service']} {rollout['state']}{reason}")
            for line in rollout["output"]:
                print(f"  {line}")
    return 1 if any(r["state"] == "failed" for r in latest.values()) else 0


def _history(session: Session, *, format: str | None, service: str | None) -> int:
    found = _found(session, service)
    if format == "json":
        output.as_json(found)
        return 0
    now = time.time()
    rows = [
        (
            str(rollout["id"]),
            rollout["service"],
            rollout["state"],
            f"{output.duration(now - rollout['started_at'])} ago",
            ", ".join(change["field"] for change in rollout["changes"]),
            rollout["reason"],
        )
        for rollout in found
    ]
    output.table(("ID", "SERVICE", "STATE", "STARTED", "CHANGES", "REASON"), rows)
    return 0


def _found(session: Session, service: str | None) -> list[dict[str, Any]]:
    """Newest first."""
    return list(session.client.get(session.project_path("rollouts"), service=service))


def _path(session: Session, service: str, verb: str) -> str:
    return session.project_path(f"rollouts/{quote(service)}/{verb}")


def _pause(session: Session, *, service: str) -> int:
    session.client.post(_path(session, service, "pause"))
    return 0


def _undo(session: Session, *, service: str) -> int:
    operation.post(session, _path(session, service, "undo"), {}, title="rollout undo")
    return 0


def _resume(session: Session, *, service: str) -> int:
    if not _found(session, service):
        raise UsageError(f"service {service} has no rollout")
    operation.post(session, _path(session, service, "resume"), {}, title="rollout resume")
    return 0


_FORMAT = choice("--format", help="Output format", choices=("text", "json"))
_ANY = Argument("service", required=False, help="Service (default: all)")
_ONE = Argument("service", help="Service")

GROUP = Group(
    "rollout",
    Command("status", _status, summary="Show the latest", options=(_FORMAT,), arguments=(_ANY,)),
    Command("history", _history, summary="List all", options=(_FORMAT,), arguments=(_ANY,)),
    Command("undo", _undo, summary="Go back to the form before", arguments=(_ONE,)),
    Command("pause", _pause, summary="Go no further than now", arguments=(_ONE,)),
    Command("resume", _resume, summary="Go on, canaries included", arguments=(_ONE,)),
    summary="Manage rollouts of services",
)
