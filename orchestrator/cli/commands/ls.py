"""`bay ls`: the projects that the daemon keeps."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.cli import output
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Command, choice, flag, repeated
from orchestrator.cli.session import Session


def run(
    session: Session, *, all: bool, quiet: bool, filter: tuple[str, ...], format: str | None
) -> int:
    patterns = [_pattern(word) for word in filter]
    projects = [
        project
        for project in session.client.get("/v1/projects")
        if (all or "running" in project["status"])
        and (not patterns or any(found(project["name"]) for found in patterns))
    ]
    if quiet:
        for project in projects:
            print(project["name"])
    elif format == "json":
        output.as_json(
            [
                {
                    "Name": project["name"],
                    "Status": project["status"],
                    "ConfigFiles": ",".join(project["config_files"]),
                }
                for project in projects
            ]
        )
    else:
        output.table(
            ("NAME", "STATUS", "CONFIG FILES"),
            [
                (project["name"], project["status"], ",".join(project["config_files"]))
                for project in projects
            ],
        )
    return 0


def _pattern(word: str) -> Callable[[str], object]:
    """Docker's `name=` filter, a regular expression that matches anywhere."""
    import re

    key, _, value = word.partition("=")
    if key != "name" or not value:
        raise UsageError(f"--filter {word}: only name=PATTERN is there")
    try:
        return re.compile(value).search
    except re.error as exc:
        raise UsageError(f"--filter {word}: {exc}") from None


COMMAND = Command(
    "ls",
    run,
    summary="List projects",
    options=(
        flag("-a", "--all", help="Stopped projects too"),
        flag("-q", "--quiet", help="Only names"),
        repeated("--filter", help="Only projects with name=PATTERN", metavar="FILTER"),
        choice("--format", help="Output format", choices=("table", "json")),
    ),
)
