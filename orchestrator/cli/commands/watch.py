"""`bay watch`: bring the stack up; every saved file becomes a sync, a restart or a build."""

from __future__ import annotations

import sys

from orchestrator.cli import operation
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, Option, choice, flag
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    no_up: bool,
    prune: bool,
    quiet: bool,
    auto: bool,
    restart: bool,
    poll: bool,
    format: str | None,
    service: tuple[str, ...],
) -> int:
    from orchestrator.cli import developing
    from orchestrator.watch.spec import Wishes

    if restart and not auto:
        raise UsageError("--restart says what the rules of --auto do; give both")
    developing.check(session)
    report = developing.reporting(session, sys.stdout, format=format, quiet=quiet)
    spec = developing.read(session, service)
    wishes = Wishes(services=service, auto=auto, restart=restart)
    session.client  # noqa: B018  # starts the daemon where none answers
    loop = developing.prepared(session, spec, wishes, report, prune=prune, poll=poll)
    if not no_up:
        options = {"services": list(service), "build": True, "environ": spec.environ}
        body = spec.body | {"options": options}
        path = session.project_path("up", spec.project.name)
        operation.follow(
            session,
            session.client.stream("POST", path, body),
            title="up",
            silent=format == "json" and session.progress == "auto",
        )
    return developing.follow(loop)


COMMAND = Command(
    "watch",
    run,
    summary="Follow the files of services: sync, restart or rebuild when they change",
    options=(
        flag("--no-up", help="Follow what is there, without building and starting it first"),
        Option(
            "--prune",
            kind="flag",
            default=True,
            help="Remove the images that rebuilds replace (--prune=false keeps them)",
        ),
        flag("--quiet", help="Do not show the output of builds and commands"),
        flag("--auto", help="Derive rules from Dockerfiles and mounts where there are none"),
        flag("--restart", help="With --auto: restart after a sync"),
        flag("--poll", help="Look every second (network file systems tell of no changes)"),
        choice("--format", help="Output format", choices=("text", "json")),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
