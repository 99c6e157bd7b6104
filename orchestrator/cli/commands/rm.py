"""`bay rm`: remove containers that have ended."""

from __future__ import annotations

import sys

from orchestrator.cli import operation
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, flag, number
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    force: bool,
    stop: bool,
    volumes: bool,
    timeout: float | None,
    service: tuple[str, ...],
) -> int:
    project = session.project_name()
    found = session.client.get(session.project_path("containers", project), all=1)
    doomed = [
        container["name"]
        for container in found
        if (not service or container["service"] in service)
        and (stop or container["state"] in ("exited", "created"))
    ]
    if not doomed:
        print("no stopped containers", file=sys.stderr)
        return 0
    if not (force or session.dry_run) and not _confirmed(doomed):
        return 0
    body = {
        "services": list(service),
        "options": {"stop": stop, "volumes": volumes, "timeout": timeout},
    }
    operation.post(session, session.project_path("rm", project), body, title="rm")
    return 0


def _confirmed(names: list[str]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to confirm the removal", hint="--force needs none")
    print(f"Going to remove {', '.join(names)}\nContinue? [yN] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


COMMAND = Command(
    "rm",
    run,
    summary="Remove stopped containers",
    options=(
        flag("-f", "--force", help="Do not ask"),
        flag("-s", "--stop", help="Stop those that run first"),
        flag("-v", "--volumes", help="Remove their anonymous volumes too"),
        number("-t", "--timeout", help="Time to stop before being killed"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
