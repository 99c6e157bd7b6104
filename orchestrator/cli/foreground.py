"""`bay up` without -d: follow the stack's output, and take it down with Ctrl-C.

The first Ctrl-C stops the containers gracefully, the second kills them, as Compose does.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from orchestrator.cli import operation, output
from orchestrator.cli.following import Follower
from orchestrator.cli.logs import Printer, Window, moment
from orchestrator.cli.session import Session


def attach(
    session: Session,
    project: str,
    *,
    services: tuple[str, ...],
    since: float,
    prefix: bool,
    colour: bool,
    timestamps: bool,
    timeout: float | None,
) -> int:
    """Follow until all containers have ended (status 0) or Ctrl-C has stopped them (130)."""
    printer = Printer(
        prefix=prefix,
        colour=colour and output.use_colour(session, sys.stdout),
        timestamps=timestamps,
    )
    ended: set[str] = set()

    def tell(containers: list[dict[str, Any]]) -> None:
        for container in containers:
            if container["state"] != "exited":
                ended.discard(container["id"])
            elif container["id"] not in ended:
                ended.add(container["id"])
                printer.note(container["name"], f"exited with code {container['exit_code']}")

    window = Window(since=moment(str(since), time.time()))
    try:
        Follower(session, project, services, printer).run(window, on_change=tell)
    except KeyboardInterrupt:
        _take_down(session, project, services, timeout)
        return 130
    return 0


def _take_down(
    session: Session, project: str, services: tuple[str, ...], timeout: float | None
) -> None:
    print("\nGracefully stopping... (press Ctrl+C again to force)", file=sys.stderr)
    named = list(services)
    try:
        operation.post(
            session,
            session.project_path("stop", project),
            {"services": named, "options": {"timeout": timeout}},
            title="stop",
        )
    except KeyboardInterrupt:
        operation.post(
            session,
            session.project_path("kill", project),
            {"services": named, "options": {"signal": "SIGKILL"}},
            title="kill",
        )
