"""`bay plan`: what `bay up` would do; exit status 0 nothing, 2 changes, 1 an error."""

from __future__ import annotations

from typing import Any

from orchestrator.cli import output
from orchestrator.cli.operation import Stack, scales
from orchestrator.cli.options import Argument, Command, choice, flag, number, repeated
from orchestrator.cli.session import Session

CHANGES = 2


def run(session: Session, *, format: str | None, **chosen: Any) -> int:
    return show(
        Stack(session, chosen["service"]).send("plan", request(**chosen)).json(), format=format
    )


def show(plan: dict[str, Any], *, format: str | None) -> int:
    if format == "json":
        output.as_json(plan)
    else:
        print(plan["text"].rstrip() or "nothing to do, everything is up to date")
    return 0 if plan["empty"] else CHANGES


def request(
    *,
    build: bool,
    no_build: bool,
    force_recreate: bool,
    no_recreate: bool,
    no_deps: bool,
    remove_orphans: bool,
    scale: tuple[str, ...],
    timeout: float | None,
    service: tuple[str, ...],
) -> dict[str, Any]:
    """The options of a plan as the daemon takes them."""
    return {
        "build": build,
        "no_build": no_build,
        "force_recreate": force_recreate,
        "no_recreate": no_recreate,
        "no_deps": no_deps,
        "remove_orphans": remove_orphans,
        "scale": scales(scale),
        "timeout": timeout,
        "services": list(service),
    }


OPTIONS = (
    flag("--build", help="Build images even when they exist"),
    flag("--no-build", help="Never build an image"),
    flag("--force-recreate", help="Recreate containers even when nothing changed"),
    flag("--no-recreate", help="Never recreate a container"),
    flag("--no-deps", help="Leave out the services that the named ones depend on"),
    flag("--remove-orphans", help="Remove containers of services that are not defined any more"),
    repeated("--scale", help="Number of replicas of a service", metavar="SERVICE=NUMBER"),
    number("-t", "--timeout", help="Time a container has to stop before it is killed"),
)
COMMAND = Command(
    "plan",
    run,
    summary="Show what up would do (exit status 2: changes)",
    options=(choice("--format", help="Output format", choices=("text", "json")), *OPTIONS),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
