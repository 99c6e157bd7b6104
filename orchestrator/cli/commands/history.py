"""`bay history`: the forms in which the project was applied."""

from __future__ import annotations

from orchestrator.cli import output
from orchestrator.cli.options import Command, choice
from orchestrator.cli.session import Session


def run(session: Session, *, format: str | None) -> int:
    revisions = session.client.get(session.project_path("revisions"))
    if format == "json":
        output.as_json(revisions)
        return 0
    rows = [
        (
            str(revision["number"]),
            f"{output.age(revision['applied_at'])} ago",
            revision["outcome"] or "",
            ", ".join(operation["command"] for operation in revision["operations"]),
            output.short_id(revision["digest"]),
        )
        for revision in revisions
    ]
    output.table(("REVISION", "APPLIED", "OUTCOME", "COMMANDS", "DIGEST"), rows)
    return 0


COMMAND = Command(
    "history",
    run,
    summary="List the revisions of the project",
    options=(choice("--format", help="Output format", choices=("table", "json")),),
)
