"""`bay ls`: the projects that the daemon keeps."""

from __future__ import annotations

from orchestrator.cli import output
from orchestrator.cli.options import Command, choice, flag
from orchestrator.cli.session import Session


def run(session: Session, *, all: bool, quiet: bool, format: str | None) -> int:
    projects = [
        project
        for project in session.client.get("/v1/projects")
        if all or "running" in project["status"]
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


COMMAND = Command(
    "ls",
    run,
    summary="List projects",
    options=(
        flag("-a", "--all", help="Stopped projects too"),
        flag("-q", "--quiet", help="Only names"),
        choice("--format", help="Output format", choices=("table", "json")),
    ),
)
