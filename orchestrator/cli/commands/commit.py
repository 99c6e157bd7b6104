"""`bay commit`: an image from what a service's container has changed."""

from __future__ import annotations

from orchestrator.cli import choosing
from orchestrator.cli.options import Argument, Command, Option, number, repeated, text
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    author: str | None,
    change: tuple[str, ...],
    message: str | None,
    pause: bool,
    index: float | None,
    service: str,
    reference: str | None,
) -> int:
    from orchestrator.engine import transfers

    container = choosing.one(session, service, index, states=())
    made = transfers.commit_container(
        session.root,
        session.run,
        container["id"],
        container["image_id"],
        reference=reference,
        edits=change,
        author=author or "",
        message=message or "",
        pause=pause,
    )
    print(made)
    return 0


COMMAND = Command(
    "commit",
    run,
    summary="Make an image from what a container has changed",
    options=(
        text("-a", "--author", help="Author", metavar="NAME"),
        repeated("-c", "--change", help="Dockerfile instruction to apply", metavar="INSTRUCTION"),
        text("-m", "--message", help="Remark for the image's history", metavar="TEXT"),
        Option(
            "-p", "--pause", kind="flag", help="Freeze the container meanwhile [true]", default=True
        ),
        number("--index", help="Which of several replicas", metavar="NUMBER"),
    ),
    arguments=(
        Argument("service", help="Service whose container to use"),
        Argument("reference", metavar="IMAGE", required=False, help="Name of the image"),
    ),
)
