"""`bay create`: make the stack's containers without starting them."""

from __future__ import annotations

from typing import Any

from orchestrator.cli import operation
from orchestrator.cli.commands import plan
from orchestrator.cli.operation import Stack
from orchestrator.cli.options import Argument, Command
from orchestrator.cli.session import Session


def run(session: Session, **chosen: Any) -> int:
    options = {**plan.request(**chosen, no_start=True), "environ": session.build_environ}
    stack = Stack(session, chosen["service"])
    operation.follow(session, stack.send("up", options), title="create")
    return 0


COMMAND = Command(
    "create",
    run,
    summary="Create containers without starting them",
    options=tuple(option for option in plan.OPTIONS if option.name != "no_start"),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
