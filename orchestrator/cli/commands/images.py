"""`bay images`: the images that a project's containers were made from."""

from __future__ import annotations

from typing import Any

from orchestrator.cli import output
from orchestrator.cli.options import Argument, Command, choice, flag
from orchestrator.cli.session import Session


def run(session: Session, *, quiet: bool, format: str | None, service: tuple[str, ...]) -> int:
    containers = [
        container
        for container in session.client.get(session.project_path("containers"), all=1)
        if not service or container["service"] in service
    ]
    stored = session.client.get("/v1/images")
    rows = [(container, _image(container["image"], stored)) for container in containers]
    if quiet:
        for identifier in dict.fromkeys(image.get("id", "") for _, image in rows):
            print(output.short_id(identifier))
    elif format == "json":
        output.as_json([_record(container, image) for container, image in rows])
    else:
        output.table(
            ("CONTAINER", "REPOSITORY", "TAG", "IMAGE ID", "SIZE"),
            [
                (
                    container["name"],
                    *split(container["image"]),
                    output.short_id(image.get("id", "")),
                    output.size(image.get("size")),
                )
                for container, image in rows
            ],
        )
    return 0


def split(reference: str) -> tuple[str, str]:
    """Repository and tag of a familiar reference; a registry's port is no tag."""
    if reference.startswith("sha256:"):
        return "<none>", "<none>"
    repository, colon, tag = reference.partition("@")[0].rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (reference, "latest")


def _image(reference: str, stored: list[dict[str, Any]]) -> dict[str, Any]:
    """The image of that name or id among those that are stored; empty where there is none."""
    named = ":".join(split(reference))
    for image in stored:
        if reference == image["id"] or {reference, named} & set(image["references"]):
            return image
    return {}


def _record(container: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    repository, tag = split(container["image"])
    return {
        "ID": image.get("id", ""),
        "ContainerName": container["name"],
        "Repository": repository,
        "Tag": tag,
        "Size": image.get("size"),
        "Created": image.get("created"),
    }


COMMAND = Command(
    "images",
    run,
    summary="List the images of the project's containers",
    options=(
        flag("-q", "--quiet", help="Only ids"),
        choice("--format", help="Output format", choices=("table", "json")),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
