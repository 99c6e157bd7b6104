"""`bay start`: start stopped containers."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.options import Argument, Command
from orchestrator.cli.session import Session


def run(session: Session, *, service: tuple[str, ...]) -> int:
    operation.post(
        session,
        session.project_path("start"),
        {"services": list(service), "options": {}},
        title="start",
    )
    return 0


COMMAND = Command(
    "start",
    run,
    summary="Start stopped containers",
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
