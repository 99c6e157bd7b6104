"""`bay restart`: restart containers."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.options import Argument, Command, flag, number
from orchestrator.cli.session import Session


def run(session: Session, *, timeout: float | None, no_deps: bool, service: tuple[str, ...]) -> int:
    operation.post(
        session,
        session.project_path("restart"),
        {"services": list(service), "options": {"timeout": timeout, "no_deps": no_deps}},
        title="restart",
    )
    return 0


COMMAND = Command(
    "restart",
    run,
    summary="Restart containers",
    options=(
        number("-t", "--timeout", help="Time to stop before being killed"),
        flag("--no-deps", help="Leave alone what depends on them with restart: true"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
