"""`bay changes`: what a container has changed in its file system, as `docker diff` tells it."""

from __future__ import annotations

from orchestrator.cli import choosing, output
from orchestrator.cli.options import Argument, Command, choice, number
from orchestrator.cli.session import Session
from orchestrator.printable import printable_line


def run(session: Session, *, format: str | None, index: float | None, service: str) -> int:
    from orchestrator.engine import transfers

    container = choosing.one(session, service, index, states=())
    found = transfers.container_changes(session.root, session.run, container["id"])
    if format == "json":
        output.as_json([{"Kind": kind, "Path": path} for kind, path in found])
        return 0
    for kind, path in found:
        print(f"{kind} {printable_line(path)}")
    return 0


COMMAND = Command(
    "changes",
    run,
    summary="List files that a container added (A), changed (C) or deleted (D)",
    options=(
        choice("--format", help="Output format", choices=("text", "json")),
        number("--index", help="Which of several replicas", metavar="NUMBER"),
    ),
    arguments=(Argument("service", help="Service whose container to use"),),
)
