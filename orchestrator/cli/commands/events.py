"""`bay events`: what happens to the project's containers."""

from __future__ import annotations

import sys
import time
from typing import Any

from orchestrator.cli import output
from orchestrator.cli.logs import instant
from orchestrator.cli.options import Argument, Command, flag, text
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    json: bool,
    since: str | None,
    until: str | None,
    service: tuple[str, ...],
) -> int:
    now = time.time()
    query: dict[str, Any] = {
        "project": session.project_name(),
        "type": "container",
        "follow": 1,
        "service": ",".join(service) or None,
        "since": None if since is None else instant(since, now),
        "until": None if until is None else instant(until, now),
    }
    with session.client.request("GET", "/v1/events", query=query) as response:
        for event in response.events():
            _show(event, json=json)
    return 0


def _show(event: dict[str, Any], *, json: bool) -> None:
    attributes = {"name": event["name"], **event["attributes"]}
    if json:
        output.as_json(
            {
                "action": event["action"],
                "attributes": attributes,
                "id": event["id"],
                "service": event["service"],
                "time": event["time"],
                "type": "container",
            }
        )
    else:
        stamp = event["time"].rstrip("Z").replace("T", " ")
        words = ", ".join(f"{name}={value}" for name, value in sorted(attributes.items()))
        print(f"{stamp} container {event['action']} {event['id']} ({words})")
    sys.stdout.flush()


COMMAND = Command(
    "events",
    run,
    summary="Show what happens to containers, until interrupted",
    options=(
        flag("--json", help="One JSON object a line"),
        text("--since", help="Also what happened from this time on", metavar="TIME"),
        text("--until", help="End at this time", metavar="TIME"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
