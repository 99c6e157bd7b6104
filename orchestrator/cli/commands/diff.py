"""`bay diff`: what differs between two revisions of the project."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.cli import output
from orchestrator.cli.options import Command, choice, number
from orchestrator.cli.session import Session


def run(
    session: Session, *, from_revision: float | None, to_revision: float | None, format: str | None
) -> int:
    query: dict[str, Any] = {
        name: int(value)
        for name, value in (("from", from_revision), ("to", to_revision))
        if value is not None
    }
    found = session.client.request("GET", session.project_path("diff"), query=query).json()
    if format == "json":
        output.as_json(found)
        return 0
    print(f"revision {found['from']} to {found['to']}")
    for change in found["changes"]:
        if change.get("hidden"):
            print(f"~ {change['path']}: (a secret changed)")
        elif change["old"] is None:
            print(f"+ {change['path']}: {json.dumps(change['new'], ensure_ascii=False)}")
        elif change["new"] is None:
            print(f"- {change['path']}: {json.dumps(change['old'], ensure_ascii=False)}")
        else:
            old = json.dumps(change["old"], ensure_ascii=False)
            new = json.dumps(change["new"], ensure_ascii=False)
            print(f"~ {change['path']}: {old} -> {new}")
    return 0


def _revision(flag: str, name: str, help: str) -> Any:
    option = number(flag, help=help, metavar="NUMBER")
    option.name = name
    return option


COMMAND = Command(
    "diff",
    run,
    summary="Show what differs between revisions (default: the last two)",
    options=(
        _revision("--from", "from_revision", "Older revision"),
        _revision("--to", "to_revision", "Newer revision"),
        choice("--format", help="Output format", choices=("text", "json")),
    ),
)
