"""`bay pause`: freeze the processes of containers."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.options import Argument, Command
from orchestrator.cli.session import Session


def run(session: Session, *, service: tuple[str, ...]) -> int:
    path = session.project_path("pause")
    operation.post(session, path, {"services": list(service)}, title="pause")
    return 0


COMMAND = Command(
    "pause",
    run,
    summary="Freeze the processes of containers",
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
