"""`bay wait`: wait until services' containers have ended; the first one's status becomes ours."""

from __future__ import annotations

import select
from typing import Any

from orchestrator.cli import choosing, operation
from orchestrator.cli.options import Argument, Command, flag
from orchestrator.cli.session import Session


def run(session: Session, *, down_project: bool, service: tuple[str, ...]) -> int:
    project = session.project_name()
    containers = choosing.some(session, service, project=project)
    status = _first_status(containers)
    if down_project:
        operation.post(
            session,
            session.project_path("down", project),
            {"project": None, "options": {}},
            title="down",
        )
    return status


def _first_status(containers: list[dict[str, Any]]) -> int:
    """Prints each exit status as it comes, until one has ended when the project is to go down,
    else all; gives the first."""
    from orchestrator.engine.monitors import InvalidState, open_watch, read_watch

    statuses: list[int] = []
    poll = select.poll()
    watched = {}
    for container in containers:
        try:
            connection = open_watch(container["monitor_socket"])
        except InvalidState:
            statuses.append(int(container["exit_code"] or 0))
            print(f"{container['name']} exited with code {statuses[-1]}")
            continue
        watched[connection.fileno()] = (container, connection)
        poll.register(connection, select.POLLIN)
    while watched:
        for fd, _ in poll.poll():
            container, connection = watched.pop(fd)
            poll.unregister(fd)
            with connection:
                ended = read_watch(connection)
            statuses.append(137 if ended is None else ended.exit_code)
            print(f"{container['name']} exited with code {statuses[-1]}", flush=True)
    return statuses[0]


COMMAND = Command(
    "wait",
    run,
    summary="Wait until containers have ended, and exit with the first one's status",
    options=(flag("--down-project", help="Take the project down then"),),
    arguments=(Argument("service", many=True, help="Services to wait for"),),
)
