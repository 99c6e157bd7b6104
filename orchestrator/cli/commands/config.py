"""`bay config`: the stack's files checked, merged and resolved, or one aspect of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, choice, flag, text
from orchestrator.cli.session import Session

if TYPE_CHECKING:
    from specs.loader import LoadedProject


def run(
    session: Session,
    *,
    quiet: bool,
    format: str | None,
    output: str | None,
    hash: str | None,
    no_interpolate: bool,
    no_path_resolution: bool,
    service: tuple[str, ...],
    **aspects: bool,
) -> int:
    from specs import rendering
    from specs.loader import load_model

    resolve_paths = not no_path_resolution
    aspect = next((name for name, chosen in aspects.items() if chosen), None)
    if no_interpolate or aspect == "variables":
        model = load_model(session.load_request(interpolate=False, resolve_paths=resolve_paths))
        if aspect == "variables":
            names = [f"{v.name}\t{v.default or ''}" for v in rendering.variables(model)]
            rendered = "".join(f"{name}\n" for name in names)
        else:
            rendered = rendering.render_model(model, form=format or "yaml")
    else:
        loaded = session.load(service, resolve_paths=resolve_paths)
        rendered = _render(loaded, aspect=aspect, format=format, hash=hash, services=service)
    if quiet:
        return 0
    if output:
        with open(output, "w", encoding="utf-8") as file:
            file.write(rendered)
    else:
        print(rendered, end="")
    return 0


def _render(
    loaded: LoadedProject,
    *,
    aspect: str | None,
    format: str | None,
    hash: str | None,
    services: tuple[str, ...],
) -> str:
    from specs import rendering

    project = loaded.project
    unknown = [name for name in services if name not in project.services]
    if unknown:
        raise UsageError(f"no such service: {', '.join(unknown)}")
    if hash is not None:
        hashes = rendering.hashes(project)
        wanted = hashes if hash == "*" else hash.split(",")
        return "".join(f"{name} {hashes[name]}\n" for name in wanted if name in hashes)
    if aspect == "environment":
        return "".join(f"{line}\n" for line in rendering.environment(loaded.environment))
    if aspect is not None:
        return "".join(f"{name}\n" for name in getattr(rendering, aspect)(project))
    if services:
        chosen = {name: project.services[name] for name in services}
        project = project.model_copy(update={"services": chosen})
    return rendering.render_json(project) if format == "json" else rendering.render_yaml(project)


COMMAND = Command(
    "config",
    run,
    summary="Check the stack's files and show them merged and resolved",
    options=(
        flag("-q", "--quiet", help="Only check"),
        choice("--format", help="Output format", choices=("yaml", "json")),
        flag("--services", help="Only the names of services"),
        flag("--images", help="Only the names of images"),
        flag("--volumes", help="Only the names of volumes"),
        flag("--networks", help="Only the names of networks"),
        flag("--profiles", help="Only the names of profiles"),
        flag("--environment", help="Only the variables that were seen"),
        flag("--variables", help="Only the variables that the files refer to"),
        text("--hash", help="Only digests of services (* for all)", metavar="SERVICES"),
        flag("--no-interpolate", help="Leave ${…} as it is"),
        flag("--no-path-resolution", help="Leave relative paths as they are"),
        text("-o", "--output", help="Write to a file", metavar="FILE"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
