"""`bay up`: make the stack what its files say, then follow its output unless detached."""

from __future__ import annotations

import sys
import time
from typing import Any

from orchestrator.cli import operation, output
from orchestrator.cli.commands import plan
from orchestrator.cli.operation import Stack
from orchestrator.cli.options import Argument, Command, flag, number
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    detach: bool,
    wait: bool,
    wait_timeout: float | None,
    dry_run: bool,
    no_log_prefix: bool,
    no_color: bool,
    timestamps: bool,
    **chosen: Any,
) -> int:
    options = plan.request(**chosen)
    stack = Stack(session, chosen["service"])
    if dry_run:
        return plan.show(stack.send("plan", options).json(), format=None)
    options |= {"wait": wait, "wait_timeout": wait_timeout}
    since = time.time()
    plans: list[dict[str, Any]] = []

    def note(event: dict[str, Any]) -> None:
        # With --build there are two: images first, then what they change.
        if event["type"] == "plan":
            known = [remark for plan in plans for remark in plan.get("notes", ())]
            for remark in event.get("notes", ()):
                if remark not in known:
                    output.warn(remark)
            plans.append(event)

    operation.follow(session, stack.send("up", options), title="up", on_event=note)
    if all(shown["empty"] for shown in plans) and session.progress != "quiet":
        print(f"{stack.name}: nothing to do, everything is up to date", file=sys.stderr)
    if detach or wait or chosen["no_start"]:
        return 0
    from orchestrator.cli.foreground import attach

    return attach(
        session,
        stack.name,
        services=chosen["service"],
        since=since,
        prefix=not no_log_prefix,
        colour=not no_color,
        timestamps=timestamps,
        timeout=chosen["timeout"],
    )


COMMAND = Command(
    "up",
    run,
    summary="Create and start the stack, changing only what differs",
    options=(
        flag("-d", "--detach", help="Leave the containers running in the background"),
        flag("--wait", help="Wait until services are running or healthy (implies -d)"),
        number("--wait-timeout", help="Give up waiting after this time"),
        flag("--dry-run", help="Show what would be done, as bay plan does"),
        flag("--no-log-prefix", help="No service names before lines of output"),
        flag("--no-color", help="No colours in the output"),
        flag("--timestamps", help="Times before lines of output"),
        *plan.OPTIONS,
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
