"""`bay system`: what the instance takes on disk, and whether it is sound."""

from __future__ import annotations

import os

from orchestrator.cli import output
from orchestrator.cli.options import Command, Group, choice
from orchestrator.cli.session import Session


def _disk_usage(session: Session, *, format: str | None) -> int:
    from orchestrator.engine import transfers

    images = transfers.disk_usage(session.root)
    rows = []
    layers = images["layers_size"]
    rows.append(("Images", images["images"], layers, images["reclaimable"]))
    for title, folder in (("Containers", "containers"), ("Local Volumes", "volumes")):
        place = os.path.join(session.root, folder)
        names = (
            [n for n in os.listdir(place) if not n.startswith(".")] if os.path.isdir(place) else []
        )
        rows.append((title, len(names), transfers.directory_size(place), 0))
    if format == "json":
        for title, count, size, reclaimable in rows:
            output.as_json(
                {"Type": title, "TotalCount": count, "Size": size, "Reclaimable": reclaimable}
            )
        return 0
    output.table(
        ("TYPE", "TOTAL", "SIZE", "RECLAIMABLE"),
        [(t, str(count), output.size(s), output.size(r)) for t, count, s, r in rows],
    )
    return 0


def _check(session: Session) -> int:
    from orchestrator.engine import transfers

    faults = transfers.check_images(session.root)
    for fault in faults:
        print(fault)
    if not faults:
        print("no fault found")
    return 1 if faults else 0


GROUP = Group(
    "system",
    Command(
        "df",
        _disk_usage,
        summary="Show what images, containers and volumes take on disk",
        options=(choice("--format", help="Output format", choices=("table", "json")),),
    ),
    Command(
        "check",
        _check,
        summary="Read all images, and tell what is damaged (exit status 1)",
    ),
    summary="Manage the instance as a whole",
)
