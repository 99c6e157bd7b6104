"""`bay run`: a container of its own for one command of a service."""

from __future__ import annotations

import os
import sys
from typing import Any

from orchestrator.cli import operation
from orchestrator.cli.commands.plan import removes_orphans
from orchestrator.cli.operation import Stack
from orchestrator.cli.options import Argument, Command, Option, choice, flag, repeated, text
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    service: str,
    command: tuple[str, ...],
    detach: bool,
    rm: bool,
    no_tty: bool,
    interactive: bool,
    build: bool,
    pull: str | None,
    name: str | None,
    no_deps: bool,
    service_ports: bool,
    use_aliases: bool,
    remove_orphans: bool,
    quiet: bool,
    quiet_pull: bool,
    quiet_build: bool,
    **wished: Any,
) -> int:
    from orchestrator.cli import oneoff

    tty = not no_tty and not detach and sys.stdin.isatty() and sys.stdout.isatty()
    changes, additions = oneoff.parts(session, **wished)
    changes |= {"tty": tty, "stdin_open": interactive and not detach}
    if command:
        changes["command"] = list(command)
    elif "entrypoint" in changes:
        changes["command"] = None
    options = {
        "service": service,
        "name": name,
        "changes": changes,
        "additions": additions,
        "build": build,
        "pull": pull or "missing",
        "no_deps": no_deps,
        "service_ports": service_ports,
        "use_aliases": use_aliases,
        "remove_orphans": remove_orphans or removes_orphans(session),
        "attach": not detach,
        "remove": rm,
        "size": os.get_terminal_size()[::-1] if tty else None,
        "environ": session.build_environ,
    }
    stack = Stack(session, (service,))
    hidden = (
        *(operation.QUIET_PULL if quiet_pull else ()),
        *(operation.QUIET_BUILD if quiet_build else ()),
    )
    response = stack.send("run", options)
    result = operation.follow(session, response, title="run", quiet=hidden, silent=quiet)
    if detach:
        print(result["container"])
        return 0
    return oneoff.follow(session, stack.name, str(result["container"]), remove=rm)


COMMAND = Command(
    "run",
    run,
    summary="Run a command in a new container of a service",
    options=(
        flag("-d", "--detach", help="Leave it running in the background and print its name"),
        flag("--rm", help="Remove the container once it has ended"),
        repeated("-e", "--env", help="Environment variable", metavar="NAME=VALUE"),
        repeated("--env-from-file", help="Environment variables from a file", metavar="FILE"),
        flag("-T", "--no-tty", "--no-TTY", name="no_tty", help="No terminal for the command"),
        Option(
            "-i",
            "--interactive",
            "--stdin",
            kind="flag",
            name="interactive",
            help="Pass our input on [true]",
            default=True,
        ),
        repeated("-p", "--publish", help="Publish a port", metavar="PORT"),
        flag("-P", "--service-ports", name="service_ports", help="Publish the service's ports"),
        repeated("-v", "--volume", help="Mount a directory or volume", metavar="SOURCE:TARGET"),
        text("-u", "--user", help="User to run as", metavar="USER"),
        text("-w", "--workdir", help="Directory to run in", metavar="DIR"),
        text("--name", help="Name of the container", metavar="NAME"),
        text("--entrypoint", help="Replace the entrypoint", metavar="COMMAND"),
        repeated("-l", "--label", help="Add a label", metavar="NAME=VALUE"),
        repeated("--cap-add", help="Add a capability", metavar="NAME"),
        repeated("--cap-drop", help="Drop a capability", metavar="NAME"),
        flag("--no-deps", help="Do not start what the service depends on"),
        flag("--use-aliases", help="Answer to the service's names on its networks"),
        flag("--build", help="Build the image first"),
        choice("--pull", help="When to pull images", choices=("always", "missing", "never")),
        flag("-q", "--quiet", help="Show no progress at all"),
        flag("--quiet-pull", help="Do not show the progress of pulls"),
        flag("--quiet-build", help="Do not show what builds print"),
        flag("--remove-orphans", help="Remove containers of services that are not defined"),
    ),
    arguments=(
        Argument("service", help="Service to run"),
        Argument("command", many=True, required=False, help="Command and its arguments"),
    ),
    passthrough=True,
)
