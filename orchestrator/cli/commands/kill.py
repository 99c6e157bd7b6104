"""`bay kill`: send a signal to running containers."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.options import Argument, Command, text
from orchestrator.cli.session import Session


def run(session: Session, *, signal: str, service: tuple[str, ...]) -> int:
    operation.post(
        session,
        session.project_path("kill"),
        {"services": list(service), "options": {"signal": signal}},
        title="kill",
    )
    return 0


COMMAND = Command(
    "kill",
    run,
    summary="Send a signal to running containers (SIGKILL)",
    options=(text("-s", "--signal", help="Name or number", default="SIGKILL", metavar="SIGNAL"),),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
