"""`bay top`: the processes of running containers."""

from __future__ import annotations

from orchestrator.cli import output
from orchestrator.cli.options import Argument, Command, choice
from orchestrator.cli.session import Session


def run(session: Session, *, format: str | None, service: tuple[str, ...]) -> int:
    found = session.client.get(session.project_path("top"), service=service)
    if format == "json":
        output.as_json(
            [
                {
                    "Name": container["name"],
                    "Service": container["service"],
                    "Processes": [
                        dict(zip(found["heads"], row, strict=True))
                        for row in container["processes"]
                    ],
                }
                for container in found["containers"]
            ]
        )
        return 0
    rows = [
        (container["service"], container["name"], *process)
        for container in found["containers"]
        for process in container["processes"]
    ]
    output.table(("SERVICE", "CONTAINER", *found["heads"]), rows)
    return 0


COMMAND = Command(
    "top",
    run,
    summary="List the processes of running containers",
    options=(choice("--format", help="Output format", choices=("table", "json")),),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
