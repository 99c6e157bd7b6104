"""`bay stop`: stop running containers without removing them."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.options import Argument, Command, number
from orchestrator.cli.session import Session


def run(session: Session, *, timeout: float | None, service: tuple[str, ...]) -> int:
    operation.post(
        session,
        session.project_path("stop"),
        {"services": list(service), "options": {"timeout": timeout}},
        title="stop",
    )
    return 0


COMMAND = Command(
    "stop",
    run,
    summary="Stop running containers without removing them",
    options=(number("-t", "--timeout", help="Time to stop before being killed"),),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
