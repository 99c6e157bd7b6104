"""`bay build`: build the images of services that have a build section."""

from __future__ import annotations

import os

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
    ssh: tuple[str, ...],
    memory: str | None,
    push: bool,
    with_dependencies: bool,
    check: bool,
    print: bool,
    quiet: bool,
    service: tuple[str, ...],
    **refused: str | None,
) -> int:
    for name, value in refused.items():
        if value and value not in _HARMLESS.get(name, ()):
            raise UsageError(f"--{name} {value} is not supported", hint=_INSTEAD[name])
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
        "environ": session.build_environ,
        "ssh": _agents(session, ssh),
        "memory": _bytes(memory),
    }
    if check or print:
        from orchestrator.cli import build_preview

        preview = build_preview.check if check else build_preview.show
        return preview(session, options, service)
    response = Stack(session, service).send("build", options)
    operation.follow(session, response, title="build", silent=quiet)
    if push and not session.dry_run:
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


def _agents(session: Session, words: tuple[str, ...]) -> dict[str, str]:
    """`default` or `ID=PATH`, the path of an agent's socket or of a private key."""
    agents: dict[str, str] = {}
    for word in words:
        for item in word.split(","):
            id, equals, path = item.partition("=")
            if not id or (equals and not path) or (not equals and id != "default"):
                raise UsageError(f"--ssh {word}: it must be default, or ID=SOCKET or ID=KEY")
            place = os.path.expanduser(path) if path else session.environ.get("SSH_AUTH_SOCK", "")
            if not place:
                raise UsageError(
                    "--ssh default: there is no agent",
                    hint="start one, so that SSH_AUTH_SOCK is set",
                )
            agents[id] = os.path.join(session.cwd, place)
    return agents


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    from specs.units import parse_size

    try:
        size = parse_size(text)
    except ValueError as exc:
        raise UsageError(f"--memory {text}: {exc}") from None
    if size <= 0:
        raise UsageError(f"--memory {text}: it must be more than nothing")
    return size


_HARMLESS = {"builder": ("default",), "provenance": ("false",), "sbom": ("false",)}
_INSTEAD = {
    "builder": "there is one builder, the daemon's own",
    "provenance": "images carry no attestations; build with --provenance=false, or none",
    "sbom": "images carry no attestations; build with --sbom=false, or none",
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
        repeated(
            "--ssh", help="An ssh agent for the builds (default, or ID=PATH)", metavar="AGENT"
        ),
        text("-m", "--memory", help="Memory that each command may use", metavar="BYTES"),
        flag("--check", help="Check the Dockerfiles and build nothing (exit status 1: remarks)"),
        flag("--print", help="Print the builds as a bake file and build nothing"),
        text("--builder", help="Not supported", metavar="NAME"),
        text("--provenance", help="Not supported but for false", metavar="MODE"),
        text("--sbom", help="Not supported but for false", metavar="MODE"),
        repeated("--build-arg", help="Value of an ARG", metavar="NAME=VALUE"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
