"""`bay volumes`: the volumes of a project, or those that services use."""

from __future__ import annotations

from typing import Any

from orchestrator.cli import output
from orchestrator.cli.options import Argument, Command, flag, text
from orchestrator.cli.session import Session


def run(session: Session, *, quiet: bool, format: str | None, service: tuple[str, ...]) -> int:
    from orchestrator.cli import choosing

    shape = output.shape(format)
    project = session.project_name()
    volumes = session.client.get("/v1/volumes", project=project)
    if service:
        used = {
            name
            for container in choosing.some(session, service, project=project)
            for name in container["volumes"]
        }
        volumes = [volume for volume in volumes if volume["name"] in used]
    if quiet:
        for volume in volumes:
            print(volume["name"])
    elif shape is not None:
        shape.show(_record(volume) for volume in volumes)
    else:
        rows = [(volume["driver"], volume["name"]) for volume in volumes]
        output.table(("DRIVER", "VOLUME NAME"), rows)
    return 0


def _record(volume: dict[str, Any]) -> dict[str, Any]:
    labels = volume.get("labels") or {}
    return {
        "Driver": volume["driver"],
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "Mountpoint": volume["mountpoint"],
        "Name": volume["name"],
        "Scope": "local",
    }


COMMAND = Command(
    "volumes",
    run,
    summary="List the project's volumes",
    options=(
        flag("-q", "--quiet", help="Only names"),
        text("--format", help="table, json or a template such as '{{.Name}}'", metavar="FORMAT"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
