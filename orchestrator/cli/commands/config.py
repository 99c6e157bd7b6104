"""`bay config`: the stack's files checked, merged and resolved, or one aspect of them.

`bay config schema` prints the JSON Schema of what is accepted, for editors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, choice, flag, text
from orchestrator.cli.session import Session

if TYPE_CHECKING:
    from specs.explain import Explanation
    from specs.loader import LoadedProject
    from specs.project import Project

# Aspects that need no env file to be read, as in Compose.
_WITHOUT_ENVIRONMENT = ("services", "volumes")


def run(
    session: Session, *, quiet: bool, output: str | None, service: tuple[str, ...], **chosen: Any
) -> int:
    from orchestrator.cli.output import write

    rendered = _rendered(session, service, **chosen)
    if not quiet:
        write(rendered, output)
    return 0


def _rendered(
    session: Session,
    service: tuple[str, ...],
    *,
    format: str | None,
    hash: str | None,
    explain: str | None,
    rendered: bool,
    no_interpolate: bool,
    no_path_resolution: bool,
    no_env_resolution: bool,
    no_consistency: bool,
    no_normalize: bool,
    resolve_image_digests: bool,
    lock_image_digests: bool,
    **aspects: bool,
) -> str:
    aspect = next((name for name, wanted in aspects.items() if wanted), None)
    if service == ("schema",):
        return _schema()
    if explain is not None:
        return _explanation(session, explain, format)
    if no_interpolate or aspect == "variables":
        return _uninterpolated(
            session,
            aspect,
            format,
            resolve_paths=not no_path_resolution,
            normalise=not no_normalize,
        )
    from specs import selection

    loaded = session.load(
        service,
        resolve_paths=not no_path_resolution,
        resolve_environment=not no_env_resolution and aspect not in _WITHOUT_ENVIRONMENT,
        check_consistency=not no_consistency,
        normalise=not no_normalize,
    )
    if rendered:
        return _templates(loaded)
    project = selection.select(loaded.project, service)
    if aspect == "environment":
        from specs import rendering

        return _lines(rendering.environment(loaded.environment))
    if lock_image_digests or resolve_image_digests:
        return _with_digests(project, format, lock=lock_image_digests)
    return _project(project, aspect, format, hash)


def _schema() -> str:
    import json

    from specs import grammar

    return json.dumps(grammar.json_schema(), indent=2)


def _uninterpolated(
    session: Session, aspect: str | None, format: str | None, **switches: Any
) -> str:
    from specs import rendering
    from specs.loader import load_model

    model = load_model(session.load_request(interpolate=False, **switches))
    if aspect == "variables":
        return rendering.variable_table(rendering.variables(model))
    return rendering.render_model(model, form=format or "yaml")


def _templates(loaded: LoadedProject) -> str:
    if not loaded.rendered:
        raise UsageError("no template is among the files", hint="templates are named *.j2")
    several = len(loaded.rendered) > 1
    return "".join(
        (f"# {path}\n" if several else "") + text for path, text in loaded.rendered.items()
    )


def _with_digests(project: Project, format: str | None, *, lock: bool) -> str:
    from orchestrator.engine import digests
    from specs import rendering

    if lock:
        return rendering.lock_image_digests(project, digests.pin)
    return _project(rendering.with_image_digests(project, digests.pin), None, format, None)


def _project(project: Project, aspect: str | None, format: str | None, hash: str | None) -> str:
    from specs import rendering

    if hash is not None:
        hashes = rendering.hashes(project)
        wanted = list(hashes) if hash == "*" else hash.split(",")
        unknown = [name for name in wanted if name not in hashes]
        if unknown:
            raise UsageError(f"no such service: {', '.join(unknown)}")
        return _lines(f"{name} {hashes[name]}" for name in wanted)
    if aspect is not None:
        return _lines(getattr(rendering, aspect)(project))
    return rendering.render_json(project) if format == "json" else rendering.render_yaml(project)


def _lines(lines: Any) -> str:
    return "".join(f"{line}\n" for line in lines)


def _explanation(session: Session, name: str, format: str | None) -> str:
    from specs.explain import explain

    found = explain(name, session.load_request())
    if format == "json":
        import dataclasses
        import json

        return json.dumps(dataclasses.asdict(found), indent=2)
    return _explained(found)


def _explained(found: Explanation) -> str:
    lines = []
    if found.setting is None:
        lines.append(f"{found.name} is not set")
    else:
        lines.append(f"{found.name}={found.setting.value}")
        lines.append(f"  from {_origin(found.setting.origin, found.setting.line)}")
    for hidden in found.shadowed:
        lines.append(f"  hides {hidden.value!r} from {_origin(hidden.origin, hidden.line)}")
    for use in found.uses:
        extra = ", required" if use.required else ""
        extra += f", default {use.default!r}" if use.default else ""
        lines.append(f"  used at {use.file}:{use.line}:{use.column} in {use.path}{extra}")
    return _lines(lines)


def _origin(origin: str, line: int) -> str:
    return "the environment" if origin == "environment" else f"{origin}:{line}"


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
        flag("--models", help="Only the names of models"),
        flag("--profiles", help="Only the names of profiles"),
        flag("--environment", help="Only the variables that were seen"),
        flag("--variables", help="Only the variables that the files refer to"),
        text("--hash", help="Only digests of services (* for all)", metavar="SERVICES"),
        text("--explain", help="Where a variable's value comes from", metavar="VARIABLE"),
        flag("--rendered", help="Only the text that the templates give"),
        flag("--no-interpolate", help="Leave ${…} as it is"),
        flag("--no-path-resolution", help="Leave relative paths as they are"),
        flag("--no-env-resolution", help="Leave env files unread"),
        flag("--no-consistency", help="Do not check the whole for consistency"),
        flag("--no-normalize", help="Leave out what is implied, such as the default network"),
        flag("--resolve-image-digests", help="Pin images to the digests of their tags"),
        flag("--lock-image-digests", help="Only an override file that pins the images"),
        text("-o", "--output", help="Write to a file", metavar="FILE"),
    ),
    arguments=(
        Argument(
            "service",
            many=True,
            required=False,
            help="Services (default: all), or the word schema for the schema of spec files",
        ),
    ),
)
