"""`bay start`: start stopped containers."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.options import Argument, Command, flag, number
from orchestrator.cli.session import Session


def run(
    session: Session, *, wait: bool, wait_timeout: float | None, service: tuple[str, ...]
) -> int:
    operation.post(
        session,
        session.project_path("start"),
        {"services": list(service), "options": {"wait": wait, "wait_timeout": wait_timeout}},
        title="start",
    )
    return 0


COMMAND = Command(
    "start",
    run,
    summary="Start stopped containers",
    options=(
        flag("--wait", help="Wait until services are running or healthy"),
        number("--wait-timeout", help="Give up waiting after this time"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
