"""`bay down`: stop and remove the stack's containers and networks."""

from __future__ import annotations

import sys
from typing import Any

from orchestrator.cli import operation
from orchestrator.cli.commands.plan import removes_orphans
from orchestrator.cli.options import Argument, Command, choice, flag, number
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    volumes: bool,
    remove_orphans: bool,
    timeout: float | None,
    rmi: str | None,
    service: tuple[str, ...],
) -> int:
    project = session.project_name()
    options = {
        "volumes": volumes,
        "remove_orphans": remove_orphans or removes_orphans(session),
        "timeout": timeout,
        "rmi": rmi,
        "services": list(service),
    }
    empty = True

    def note(event: dict[str, Any]) -> None:
        nonlocal empty
        empty = empty and event["type"] != "step"

    operation.post(
        session,
        session.project_path("down", project),
        {"project": None, "options": options},
        title="down",
        on_event=note,
    )
    if empty and not session.dry_run and session.progress != "quiet":
        print(f"{project}: nothing to remove", file=sys.stderr)
    return 0


COMMAND = Command(
    "down",
    run,
    summary="Stop and remove containers and networks",
    options=(
        flag("-v", "--volumes", help="Remove the stack's named volumes and anonymous ones too"),
        flag("--remove-orphans", help="Remove containers of services that are not defined"),
        number("-t", "--timeout", help="Time a container has to stop before it is killed"),
        choice("--rmi", help="Remove images that services use", choices=("all", "local")),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
