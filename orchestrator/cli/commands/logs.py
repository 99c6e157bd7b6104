"""`bay logs`: what containers have printed, and with -f what they print next."""

from __future__ import annotations

import sys
import time
from typing import Any

from orchestrator.cli import logs, output
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, flag, number, text
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    follow: bool,
    tail: str | None,
    timestamps: bool,
    since: str | None,
    until: str | None,
    no_log_prefix: bool,
    no_color: bool,
    index: float | None,
    service: tuple[str, ...],
) -> int:
    project = session.project_name()
    now = time.time()
    printer = logs.Printer(
        prefix=not no_log_prefix,
        colour=not no_color and output.use_colour(session, sys.stdout),
        timestamps=timestamps,
    )
    containers = logs.chosen(session, project, service, index)
    printer.know(container["name"] for container in containers)
    window = logs.Window(
        tail=_tail(tail),
        since=None if since is None else logs.moment(since, now),
        until=None if until is None else logs.moment(until, now),
    )
    if follow:
        from orchestrator.cli.following import Follower

        def followed(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return logs.narrowed(found, service, index)

        Follower(session, project, followed, printer).run(window)
    else:
        logs.show([logs.Source(container) for container in containers], window, printer)
    return 0


def _tail(value: str | None) -> int | None:
    if value is None or value == "all":
        return None
    if not value.isdigit():
        raise UsageError(f"--tail {value}: it must be a number or all")
    return int(value)


COMMAND = Command(
    "logs",
    run,
    summary="Show the output of containers",
    options=(
        flag("-f", "--follow", help="Go on with what is printed next"),
        text("-n", "--tail", help="Only the last lines of each container", metavar="LINES"),
        flag("-t", "--timestamps", help="Times before lines"),
        text("--since", help="Only from this time on (2026-01-31T10:00:00Z, 10m)", metavar="TIME"),
        text("--until", help="Only before this time", metavar="TIME"),
        number("--index", help="Which of several replicas", metavar="NUMBER"),
        flag("--no-log-prefix", help="No container names before lines"),
        flag("--no-color", help="No colours"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
