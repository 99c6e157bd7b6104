"""`bay restart`: restart containers."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.options import Argument, Command, flag, number
from orchestrator.cli.session import Session


def run(session: Session, *, timeout: float | None, no_deps: bool, service: tuple[str, ...]) -> int:
    # Only what is named is restarted in any case; the flag is there for Compose's sake.
    del no_deps
    operation.post(
        session,
        session.project_path("restart"),
        {"services": list(service), "options": {"timeout": timeout}},
        title="restart",
    )
    return 0


COMMAND = Command(
    "restart",
    run,
    summary="Restart containers",
    options=(
        number("-t", "--timeout", help="Time to stop before being killed"),
        flag("--no-deps", help="Restart nothing that is not named, as is done in any case"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
