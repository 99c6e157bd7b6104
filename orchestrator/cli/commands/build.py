"""`bay build`: build the images of services that have a build section."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.errors import UsageError
from orchestrator.cli.operation import Stack
from orchestrator.cli.options import Argument, Command, flag, repeated
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    no_cache: bool,
    pull: bool,
    build_arg: tuple[str, ...],
    service: tuple[str, ...],
) -> int:
    options = {
        "services": list(service),
        "no_cache": no_cache,
        "pull": pull,
        "build_args": _arguments(session, build_arg),
    }
    operation.follow(session, Stack(session, service).send("build", options), title="build")
    return 0


def _arguments(session: Session, words: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE pairs; a bare NAME takes its value from the environment, if it has one."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise UsageError(f"--build-arg {word}: it must be NAME=VALUE")
        if equals:
            values[name] = value
        elif name in session.environ:
            values[name] = session.environ[name]
    return values


COMMAND = Command(
    "build",
    run,
    summary="Build the images of services",
    options=(
        flag("--no-cache", help="Run every step again"),
        flag("--pull", help="Look for newer base images"),
        repeated("--build-arg", help="Value of an ARG", metavar="NAME=VALUE"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
