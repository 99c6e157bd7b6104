"""`bay scale`: set how many replicas services have."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.commands import plan
from orchestrator.cli.operation import Stack, scales
from orchestrator.cli.options import Argument, Command, flag
from orchestrator.cli.session import Session


def run(session: Session, *, no_deps: bool, scale: tuple[str, ...]) -> int:
    wanted = scales(scale, "")
    services = tuple(wanted)
    options = {"services": list(services), "scale": wanted, "no_deps": no_deps}
    if session.dry_run:
        return plan.show(Stack(session, services).send("plan", options).json(), format=None)
    operation.follow(session, Stack(session, services).send("up", options), title="scale")
    return 0


COMMAND = Command(
    "scale",
    run,
    summary="Set the number of replicas of services",
    options=(flag("--no-deps", help="Leave out what the services depend on"),),
    arguments=(
        Argument("scale", metavar="SERVICE=NUMBER", many=True, help="Service and its number"),
    ),
)
