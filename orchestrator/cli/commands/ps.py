"""`bay ps`: the containers of a project."""

from __future__ import annotations

from orchestrator.cli import choosing, containers, output
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, Option, flag, repeated, text
from orchestrator.cli.session import Session

_RUNNING = ("running", "paused", "restarting")


def run(
    session: Session,
    *,
    all: bool,
    quiet: bool,
    services: bool,
    format: str | None,
    status: tuple[str, ...],
    filter: tuple[str, ...],
    orphans: bool,
    no_trunc: bool,
    service: tuple[str, ...],
) -> int:
    shape = output.shape(format)
    status += tuple(_state(word) for word in filter)
    project = session.project_name()
    found = session.client.get(session.project_path("containers", project), all=1)
    known = {container["service"] for container in found}
    for name in service:
        if name not in known:
            raise UsageError(f"no such service, or no container of it: {name}")
    # As in Compose, who names services gets them, whatever the files say.
    own = known if orphans or service else choosing.declared(session)
    shown = [
        container
        for container in found
        if (not service or container["service"] in service)
        and (all or not container.get("oneoff"))
        and container["service"] in own
        and (container["state"] in status if status else all or container["state"] in _RUNNING)
    ]
    if quiet:
        print("".join(f"{container['id']}\n" for container in shown), end="")
    elif services:
        for name in dict.fromkeys(container["service"] for container in shown):
            print(name)
    elif shape is not None:
        shape.show(containers.record(project, container) for container in shown)
    else:
        rows = (containers.row(container, whole=no_trunc) for container in shown)
        output.table(containers.HEADS, rows)
    return 0


def _state(word: str) -> str:
    key, _, value = word.partition("=")
    if key != "status" or not value:
        raise UsageError(f"--filter {word}: only status=STATE is there")
    return value


COMMAND = Command(
    "ps",
    run,
    summary="List containers",
    options=(
        flag("-a", "--all", help="Stopped containers too"),
        flag("-q", "--quiet", help="Only ids"),
        flag("--services", help="Only the names of services"),
        text("--format", help="table, json or a template such as '{{.Name}}'", metavar="FORMAT"),
        repeated("--filter", help="Only containers with status=STATE", metavar="FILTER"),
        Option(
            "--orphans",
            kind="flag",
            help="Containers of services that are not defined any more, too; "
            "--orphans=false leaves them out [true]",
            default=True,
        ),
        flag("--no-trunc", help="Whole commands"),
        repeated("--status", help="Only containers in this state", metavar="STATE"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
