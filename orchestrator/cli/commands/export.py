"""`bay export`: the file system of a service's container as a tar archive."""

from __future__ import annotations

import os
import sys

from orchestrator.cli import choosing
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, number, text
from orchestrator.cli.session import Session


def run(session: Session, *, output: str | None, index: float | None, service: str) -> int:
    from orchestrator.engine import transfers

    if output in (None, "-") and sys.stdout.isatty():
        raise UsageError("an archive on a terminal helps nobody", hint="-o FILE, or redirect it")
    container = choosing.one(session, service, index, states=())
    if output is None or output == "-":
        transfers.export_container(session.root, session.run, container["id"], sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return 0
    with open(os.path.join(session.cwd, output), "wb") as file:
        transfers.export_container(session.root, session.run, container["id"], file)
    return 0


COMMAND = Command(
    "export",
    run,
    summary="Write a container's file system as a tar archive",
    options=(
        text("-o", "--output", help="Write to a file", metavar="FILE"),
        number("--index", help="Which of several replicas", metavar="NUMBER"),
    ),
    arguments=(Argument("service", help="Service whose container to use"),),
)
