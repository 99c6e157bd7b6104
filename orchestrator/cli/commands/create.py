"""`bay create`: make the stack's containers without starting them."""

from __future__ import annotations

from typing import Any

from orchestrator.cli import operation
from orchestrator.cli.commands import plan
from orchestrator.cli.operation import Stack
from orchestrator.cli.options import Argument, Command, flag
from orchestrator.cli.session import Session


def run(session: Session, *, quiet_pull: bool, yes: bool, **chosen: Any) -> int:
    del yes  # Nothing is asked; the flag is there for Compose's sake.
    asked = plan.request(session, **chosen, no_start=True)
    options = {**asked, "environ": session.build_environ}
    stack = Stack(session, chosen["service"])
    if session.dry_run:
        return plan.show(stack.send("plan", options).json(), format=None)
    quiet = operation.QUIET_PULL if quiet_pull else ()
    operation.follow(session, stack.send("up", options), title="create", quiet=quiet)
    return 0


COMMAND = Command(
    "create",
    run,
    summary="Create containers without starting them",
    options=(
        *(option for option in plan.OPTIONS if option.name != "no_start"),
        flag("--quiet-pull", help="Do not show the progress of pulls"),
        flag("-y", "--yes", help="Answer yes to every question (none is asked)"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
