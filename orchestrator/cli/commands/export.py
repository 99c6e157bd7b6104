"""`bay export`: the file system of a service's container as a tar archive."""

from __future__ import annotations

from orchestrator.cli import choosing
from orchestrator.cli.archive_output import archive_output
from orchestrator.cli.options import Argument, Command, number, text
from orchestrator.cli.session import Session


def run(session: Session, *, output: str | None, index: float | None, service: str) -> int:
    from orchestrator.engine import transfers

    container = choosing.one(session, service, index, states=())
    with archive_output(session, output) as stream:
        transfers.export_container(session.root, session.run, container["id"], stream)
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
