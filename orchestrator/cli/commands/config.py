"""`bay config`: the stack as bayplan understands it, or one aspect of it."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, choice, flag, text
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    quiet: bool,
    format: str | None,
    output: str | None,
    service: tuple[str, ...],
    **aspects: bool,
) -> int:
    project = session.load().project.canonical()
    unknown = [name for name in service if name not in project["services"]]
    if unknown:
        raise UsageError(f"no such service: {', '.join(unknown)}")
    if service:
        project["services"] = {name: project["services"][name] for name in service}
    if quiet:
        return 0
    wanted = next((name for name, chosen in aspects.items() if chosen), None)
    rendered = _lines(project, wanted) if wanted else _whole(project, format)
    if output:
        with open(output, "w", encoding="utf-8") as file:
            file.write(rendered)
    else:
        print(rendered, end="")
    return 0


def _whole(project: dict[str, Any], format: str | None) -> str:
    if format == "json":
        return json.dumps(project, indent=2, ensure_ascii=False) + "\n"
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(project, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100))


def _lines(project: dict[str, Any], aspect: str) -> str:
    services = project["services"].values()
    if aspect == "images":
        names = [
            service.get("image") or f"{project['name']}-{name}"
            for name, service in project["services"].items()
        ]
    elif aspect == "profiles":
        names = sorted({name for service in services for name in service.get("profiles") or ()})
    else:
        names = list(project.get(aspect) or ())
    return "".join(f"{name}\n" for name in names)


COMMAND = Command(
    "config",
    run,
    summary="Check the stack's files and show them resolved",
    options=(
        flag("-q", "--quiet", help="Only check"),
        choice("--format", help="Output format", choices=("yaml", "json")),
        flag("--services", help="Only the names of services"),
        flag("--images", help="Only the names of images"),
        flag("--volumes", help="Only the names of volumes"),
        flag("--networks", help="Only the names of networks"),
        flag("--profiles", help="Only the names of profiles"),
        text("-o", "--output", help="Write to a file", metavar="FILE"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
