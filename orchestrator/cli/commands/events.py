"""`bay events`: what happens to the project's containers."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from orchestrator.cli import output
from orchestrator.cli.logs import Window, instant, moment, time_key
from orchestrator.cli.options import Argument, Command, flag, text
from orchestrator.cli.session import Session
from orchestrator.client.http import Response

_GRACE = 0.2  # seconds


def run(
    session: Session,
    *,
    json: bool,
    since: str | None,
    until: str | None,
    service: tuple[str, ...],
) -> int:
    project, now = session.project_name(), time.time()
    query: dict[str, Any] = {"project": project, "follow": "1"}
    if since is not None:
        query["since"] = since
    window = Window(
        since=None if since is None else moment(since, now),
        until=None if until is None else moment(until, now),
    )
    with session.client.request("GET", "/v1/events", query=query) as response:
        for event in _until(response, until, now):
            if event["type"] != "container" or (service and event["service"] not in service):
                continue
            if window.holds(time_key(event["time"])):
                _show(event, json=json)
    return 0


class _TimeIsUp(Exception):
    pass


def _until(response: Response, until: str | None, now: float) -> Iterator[dict[str, Any]]:
    """The events that come up to a moment, which may be long after the last of them."""
    if until is None:
        yield from response.events()
        return

    def end(*_: object) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, end)
    # What is past already has come by then.
    signal.setitimer(signal.ITIMER_REAL, max(instant(until, now) - now, _GRACE))
    try:
        yield from response.events()
    except _TimeIsUp:
        return
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
