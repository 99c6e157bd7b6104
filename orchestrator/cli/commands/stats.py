"""`bay stats`: what running containers use."""

from __future__ import annotations

import sys
from typing import Any

from orchestrator.cli import output
from orchestrator.cli.options import Argument, Command, flag, text
from orchestrator.cli.session import Session
from orchestrator.cli.usage import HEADS, records

_CLEAR = "\x1b[H\x1b[J"


def run(
    session: Session,
    *,
    all: bool,
    no_stream: bool,
    no_trunc: bool,
    format: str | None,
    service: tuple[str, ...],
) -> int:
    shape = output.shape(format)
    query: dict[str, Any] = {"service": service}
    if all:
        query["all"] = 1
    if no_stream:
        query["once"] = 1
    path = session.project_path("stats")
    before: dict[str, dict[str, Any]] = {}
    response = session.client.request("GET", path, query=query)
    for sample in response.events():
        found = {container["id"]: container for container in sample["containers"]}
        if before or (not found and no_stream):
            shown = records(before, found, full_ids=no_trunc)
            if shape is None:
                clear = not no_stream and output.use_colour(session, sys.stdout)
                print(_CLEAR if clear else "", end="")
                output.table(HEADS, [tuple(record[key] for key in _KEYS) for record in shown])
            else:
                shape.show(shown)
            sys.stdout.flush()
        before = found or before
    return 0


_KEYS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")

COMMAND = Command(
    "stats",
    run,
    summary="Show what containers use, until interrupted",
    options=(
        flag("-a", "--all", help="Stopped containers too"),
        flag("--no-stream", help="Only once"),
        flag("--no-trunc", help="Whole ids"),
        text("--format", help="table, json or a template such as '{{.Name}}'", metavar="FORMAT"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
