"""`bay image`: the images stored on this host, and base images made without a registry."""

from __future__ import annotations

import json

from orchestrator.cli import operation, output
from orchestrator.cli.commands import image_transfer
from orchestrator.cli.commands.images import split
from orchestrator.cli.options import Argument, Command, Group, choice, flag, repeated, text
from orchestrator.cli.session import Session
from orchestrator.client.http import quote


def _list(session: Session, *, quiet: bool, format: str | None) -> int:
    images = session.client.get("/v1/images")
    if quiet:
        for image in images:
            print(output.short_id(image["id"]))
    elif format == "json":
        for image in images:
            output.as_json(image)
    else:
        output.table(
            ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"),
            [
                (
                    *split(reference),
                    output.short_id(image["id"]),
                    f"{output.age(image.get('created'))} ago",
                    output.size(image.get("size")),
                )
                for image in images
                for reference in image["references"] or ("sha256:",)
            ],
        )
    return 0


def _inspect(session: Session, *, image: tuple[str, ...]) -> int:
    found = [session.client.get(f"/v1/images/{quote(reference)}") for reference in image]
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return 0


def _remove(session: Session, *, force: bool, image: tuple[str, ...]) -> int:
    for reference in image:
        removed = session.client.delete(
            f"/v1/images/{quote(reference)}", force=1 if force else None
        )
        for name in removed["untagged"]:
            print(f"Untagged: {name}")
        for identifier in removed["deleted"]:
            print(f"Deleted: {identifier}")
    return 0


def _bootstrap(
    session: Session, *, reference: str, include: tuple[str, ...], mirror: str | None
) -> int:
    packages = [name for words in include for name in words.split(",") if name]
    result = operation.post(
        session,
        "/v1/images/bootstrap",
        {"reference": reference, "include": packages, "mirror": mirror},
        title=f"bootstrap {reference}",
    )
    print(result.get("image") or reference)
    return 0


_IMAGES = Argument("image", many=True, help="References or ids of images")

GROUP = Group(
    "image",
    Command(
        "ls",
        _list,
        summary="List images",
        options=(
            flag("-q", "--quiet", help="Only ids"),
            choice("--format", help="Output format", choices=("table", "json")),
        ),
    ),
    Command(
        "bootstrap",
        _bootstrap,
        summary="Make a base image from Debian's packages (debian:bookworm)",
        options=(
            repeated("--include", help="Further packages, separated by commas", metavar="PACKAGES"),
            text("--mirror", help="Where to fetch packages from", metavar="URL"),
        ),
        arguments=(Argument("reference", help="Name of the image, debian:SUITE"),),
    ),
    Command("inspect", _inspect, summary="Show images as JSON", arguments=(_IMAGES,)),
    Command(
        "rm",
        _remove,
        summary="Remove images",
        options=(flag("--force", help="Even when a container uses it"),),
        arguments=(_IMAGES,),
    ),
    *image_transfer.COMMANDS,
    summary="Manage images",
)
