"""`bay up`: make the stack what its files say, then follow its output unless detached."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from orchestrator.cli import operation, output
from orchestrator.cli.commands import plan
from orchestrator.cli.errors import UsageError
from orchestrator.cli.operation import Stack
from orchestrator.cli.options import (
    Argument,
    Command,
    Option,
    flag,
    number,
    repeated,
    text,
)
from orchestrator.cli.session import Session
from orchestrator.cli.wish import Wish

if TYPE_CHECKING:
    from orchestrator.cli.watching import Watching


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
    attach: tuple[str, ...],
    no_attach: tuple[str, ...],
    attach_dependencies: bool,
    abort_on_container_exit: bool,
    abort_on_container_failure: bool,
    exit_code_from: str | None,
    quiet_pull: bool,
    quiet_build: bool,
    yes: bool,
    watch: bool,
    menu: bool | None,
    **chosen: Any,
) -> int:
    del yes  # Nothing is asked; the flag is there for Compose's sake.
    wish = Wish(
        services=chosen["service"],
        attach=attach,
        no_attach=no_attach,
        dependencies=attach_dependencies,
        abort_on_exit=abort_on_container_exit,
        abort_on_failure=abort_on_container_failure,
        exit_code_from=exit_code_from,
    )
    if detach or wait:
        wish.check_detached("--detach" if detach else "--wait")
    watching: Watching | None = None
    if watch and not (dry_run or session.dry_run):
        from orchestrator.cli.watching import Watching

        wish.check_watched()
        _check_watched(chosen, detached=detach or wait)
        watching = Watching(session, chosen["service"])
        watching.prepare()
    options = {**plan.request(session, **chosen), "environ": session.build_environ}
    stack = Stack(session, chosen["service"])
    if dry_run or session.dry_run:
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

    quiet = (
        *(operation.QUIET_PULL if quiet_pull else ()),
        *(operation.QUIET_BUILD if quiet_build else ()),
    )
    operation.follow(session, stack.send("up", options), title="up", on_event=note, quiet=quiet)
    if all(shown["empty"] for shown in plans) and session.progress != "quiet":
        print(f"{stack.name}: nothing to do, everything is up to date", file=sys.stderr)
    if detach or wait or chosen["no_start"]:
        return 0
    # Loaded by nobody who detaches, as it takes longer than the rest of the command.
    from orchestrator.cli import foreground

    return foreground.attach(
        session,
        stack.name,
        wish,
        since=since,
        prefix=not no_log_prefix,
        colour=not no_color,
        timestamps=timestamps,
        timeout=chosen["timeout"],
        watching=watching,
        menu=menu,
    )


def _check_watched(chosen: dict[str, Any], *, detached: bool) -> None:
    """Raises UsageError where --watch is asked for beside what excludes it."""
    if detached:
        raise UsageError("--watch and --detach exclude each other", hint="bay watch follows alone")
    for name in ("no_build", "no_start"):
        if chosen[name]:
            raise UsageError(f"--watch and --{name.replace('_', '-')} exclude each other")


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
        repeated("--attach", help="Show the output of this service only", metavar="SERVICE"),
        repeated("--no-attach", help="Do not show this service's output", metavar="SERVICE"),
        flag("--attach-dependencies", help="Show the output of what services depend on, too"),
        flag("--abort-on-container-exit", help="Stop everything when a container ends"),
        flag("--abort-on-container-failure", help="Stop everything when a container fails"),
        text(
            "--exit-code-from",
            help="Stop everything when a container ends, with this service's exit status",
            metavar="SERVICE",
        ),
        flag("--quiet-pull", help="Do not show the progress of pulls"),
        flag("--quiet-build", help="Do not show what builds print"),
        flag("-w", "--watch", help="Sync, restart or rebuild services when their files change"),
        Option(
            "--menu",
            kind="flag",
            help="Take keys on a terminal: d detaches, w watches [unless COMPOSE_MENU=false]",
        ),
        flag("-y", "--yes", help="Answer yes to every question (none is asked)"),
        *plan.OPTIONS,
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
