"""`bay build`: build the images of services that have a build section."""

from __future__ import annotations

from orchestrator.cli import operation
from orchestrator.cli.errors import UsageError
from orchestrator.cli.operation import Stack
from orchestrator.cli.options import Argument, Command, flag, repeated, text
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    no_cache: bool,
    pull: bool,
    build_arg: tuple[str, ...],
    push: bool,
    with_dependencies: bool,
    quiet: bool,
    service: tuple[str, ...],
    **unsupported: object,
) -> int:
    for name, value in unsupported.items():
        if value:
            raise UsageError(f"--{name} is not supported by this builder", hint=_INSTEAD.get(name))
    images: dict[str, tuple[str, bool]] = {}
    if push or (with_dependencies and service):
        from orchestrator.cli import transfer

        images = transfer.images_of(session, service, dependencies=with_dependencies)
    named = tuple(images) if with_dependencies and service else service
    options = {
        "services": list(named),
        "no_cache": no_cache,
        "pull": pull,
        "build_args": _arguments(session, build_arg),
    }
    response = Stack(session, service).send("build", options)
    operation.follow(session, response, title="build", silent=quiet)
    if push:
        from orchestrator.engine import transfers

        transfer.one_by_one(
            session,
            dict.fromkeys(image for image, built in images.values() if built),
            lambda reference, tell: transfers.push(session.root, reference, tell),
            word="Pushing",
            quiet=quiet,
        )
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


_INSTEAD = {
    "memory": "limit the daemon's control group instead",
    "print": "bay config shows what would be built",
}
COMMAND = Command(
    "build",
    run,
    summary="Build the images of services",
    options=(
        flag("--no-cache", help="Run every step again"),
        flag("--pull", help="Look for newer base images"),
        flag("--push", help="Push the images then"),
        flag("--with-dependencies", help="Also what the services depend on"),
        flag("-q", "--quiet", help="No progress"),
        text("--ssh", help="Not supported", metavar="KEY"),
        text("-m", "--memory", help="Not supported", metavar="BYTES"),
        text("--builder", help="Not supported", metavar="NAME"),
        text("--provenance", help="Not supported", metavar="MODE"),
        text("--sbom", help="Not supported", metavar="MODE"),
        flag("--check", help="Not supported"),
        flag("--print", help="Not supported"),
        repeated("--build-arg", help="Value of an ARG", metavar="NAME=VALUE"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
