"""`bay kill`: send a signal to running containers."""

from __future__ import annotations

from orchestrator.cli import choosing, operation
from orchestrator.cli.options import Argument, Command, flag, text
from orchestrator.cli.session import Session


def run(session: Session, *, signal: str, remove_orphans: bool, service: tuple[str, ...]) -> int:
    orphans = _orphans(session) if remove_orphans else []
    operation.post(
        session,
        session.project_path("kill"),
        {"services": list(service), "options": {"signal": signal}},
        title="kill",
    )
    if orphans:
        operation.post(
            session,
            session.project_path("rm"),
            {"names": orphans, "options": {"stop": True, "timeout": 0}},
            title="kill",
        )
    return 0


def _orphans(session: Session) -> list[str]:
    """The names of containers whose services the project does not have."""
    known = choosing.declared(session)
    found = session.client.get(session.project_path("containers"), all=1)
    return [each["name"] for each in found if each["service"] not in known]


COMMAND = Command(
    "kill",
    run,
    summary="Send a signal to running containers (SIGKILL)",
    options=(
        text("-s", "--signal", help="Name or number", default="SIGKILL", metavar="SIGNAL"),
        flag("--remove-orphans", help="Remove containers of services that are not defined"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
