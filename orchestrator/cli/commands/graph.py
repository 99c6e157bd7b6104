"""`bay graph`: which service waits for which, as a tree or for other tools."""

from __future__ import annotations

from orchestrator.cli.options import Argument, Command, choice, text
from orchestrator.cli.session import Session


def run(session: Session, *, format: str, output: str | None, service: tuple[str, ...]) -> int:
    from orchestrator.cli.output import write
    from specs import graph

    write(graph.render(session.load(service).project, format), output)
    return 0


COMMAND = Command(
    "graph",
    run,
    summary="Show which service waits for which",
    options=(
        choice(
            "--format",
            help="Output format",
            choices=("tree", "mermaid", "dot", "json", "svg"),
            default="tree",
        ),
        text("-o", "--output", help="Write to a file", metavar="FILE"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
