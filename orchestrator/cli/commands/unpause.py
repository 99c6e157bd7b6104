"""`bay unpause`: thaw paused containers."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.options import Argument, Command
from orchestrator.cli.session import Session


def run(session: Session, *, service: tuple[str, ...]) -> int:
    path = session.project_path("unpause")
    operation.post(session, path, {"services": list(service)}, title="unpause")
    return 0


COMMAND = Command(
    "unpause",
    run,
    summary="Thaw paused containers",
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
