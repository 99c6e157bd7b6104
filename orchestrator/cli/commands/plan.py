"""`bay plan`: what `bay up` would do; exit status 0 nothing, 2 changes, 1 an error."""

from __future__ import annotations

from typing import Any

from orchestrator.cli import output
from orchestrator.cli.errors import UsageError
from orchestrator.cli.operation import Stack, scales
from orchestrator.cli.options import Argument, Command, choice, flag, number, repeated
from orchestrator.cli.session import Session
from orchestrator.printable import printable

CHANGES = 2


def run(session: Session, *, format: str | None, **chosen: Any) -> int:
    return show(
        Stack(session, chosen["service"]).send("plan", request(session, **chosen)).json(),
        format=format,
    )


def show(plan: dict[str, Any], *, format: str | None) -> int:
    if format == "json":
        output.as_json(plan)
    else:
        print(printable(plan["text"]).rstrip() or "nothing to do, everything is up to date")
    return 0 if plan["empty"] else CHANGES


def request(
    session: Session, *, scale: tuple[str, ...], service: tuple[str, ...], **chosen: Any
) -> dict[str, Any]:
    """The options of a plan as the daemon takes them."""
    ignored = session.variables.on("COMPOSE_IGNORE_ORPHANS")
    if ignored and chosen["remove_orphans"]:
        raise UsageError("--remove-orphans and COMPOSE_IGNORE_ORPHANS exclude each other")
    chosen["remove_orphans"] = chosen["remove_orphans"] or (
        not ignored and removes_orphans(session)
    )
    chosen |= {"ignore_orphans": ignored, "all_resources": session.all_resources}
    for one, other in _EXCLUSIVE:
        if chosen[one] and chosen[other]:
            raise UsageError(f"{_flag(one)} and {_flag(other)} exclude each other")
    return {**chosen, "scale": scales(scale), "services": list(service)}


def removes_orphans(session: Session) -> bool:
    """What holds where --remove-orphans is not given."""
    return session.variables.on("COMPOSE_REMOVE_ORPHANS")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


_EXCLUSIVE = (
    ("build", "no_build"),
    ("force_recreate", "no_recreate"),
    ("always_recreate_deps", "no_recreate"),
)
OPTIONS = (
    flag("--build", help="Build images even when they exist"),
    flag("--no-build", help="Never build an image"),
    choice("--pull", help="When to pull images", choices=("always", "missing", "never", "build")),
    flag("--force-recreate", help="Recreate containers even when nothing changed"),
    flag("--no-recreate", help="Never recreate a container"),
    flag("--always-recreate-deps", help="Recreate what the recreated services depend on, too"),
    flag("--no-deps", help="Leave out the services that the named ones depend on"),
    flag("--no-start", help="Create containers without starting them"),
    flag("--remove-orphans", help="Remove containers of services that are not defined any more"),
    flag("-V", "--renew-anon-volumes", help="New anonymous volumes for recreated containers"),
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
