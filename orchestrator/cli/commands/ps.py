"""`bay ps`: the containers of a project."""

from __future__ import annotations

from orchestrator.cli import containers, output
from orchestrator.cli.options import Argument, Command, choice, flag, repeated
from orchestrator.cli.session import Session

_RUNNING = ("running", "paused", "restarting")


def run(
    session: Session,
    *,
    all: bool,
    quiet: bool,
    services: bool,
    format: str | None,
    status: tuple[str, ...],
    service: tuple[str, ...],
) -> int:
    project = session.project_name()
    found = session.client.get(session.project_path("containers", project), all=1)
    shown = [
        container
        for container in found
        if (not service or container["service"] in service)
        and (container["state"] in status if status else all or container["state"] in _RUNNING)
    ]
    if quiet:
        print("".join(f"{container['id']}\n" for container in shown), end="")
    elif services:
        for name in dict.fromkeys(container["service"] for container in shown):
            print(name)
    elif format == "json":
        for container in shown:
            output.as_json(containers.record(project, container))
    else:
        output.table(containers.HEADS, map(containers.row, shown))
    return 0


COMMAND = Command(
    "ps",
    run,
    summary="List containers",
    options=(
        flag("-a", "--all", help="Stopped containers too"),
        flag("-q", "--quiet", help="Only ids"),
        flag("--services", help="Only the names of services"),
        choice("--format", help="Output format", choices=("table", "json")),
        repeated("--status", help="Only containers in this state", metavar="STATE"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
