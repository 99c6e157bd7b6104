"""The same commands as a typer application: help, completion, and what is wrong with a line.

Every command's function is made from its declaration, so the two parsers cannot drift
apart: what typer accepts runs exactly as if the small parser had.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from orchestrator.cli.arguments import Line
from orchestrator.cli.errors import UsageError, report
from orchestrator.cli.options import GLOBAL_OPTIONS, Argument, Command, Group, Option, Value
from orchestrator.cli.session import Session
from orchestrator.cli.table import VERBS, find

CarryOut = Callable[[Line], int]

_HELP = """Runs multi-container stacks from Compose files.

Compose's files, commands and flags, without Docker: `bay up -d` in a directory with a
compose.yaml plans what has to change and makes it so.
"""


def run(argv: list[str], carry_out: CarryOut) -> int:
    """Parse `argv` with typer and carry it out; mistakes become one line and status 1."""
    command = typer.main.get_command(build(carry_out))
    if not argv or (len(argv) == 1 and isinstance(find(argv[0]), Group)):
        argv = [*argv, "--help"]
    try:
        status = command.main(args=argv, prog_name="bay", standalone_mode=False)
    except typer.TyperException as exc:
        return report(UsageError(_sentence(exc), hint=_help_hint(exc)))
    except typer.Abort:
        return 130
    return status if isinstance(status, int) else 0


def build(carry_out: CarryOut) -> typer.Typer:
    """The whole application; `carry_out` receives each parsed line."""
    app = typer.Typer(
        help=_HELP, rich_markup_mode=None, add_completion=True, pretty_exceptions_enable=False
    )
    settings: dict[str, Value] = {option.name: option.default for option in GLOBAL_OPTIONS}

    def remember(**values: Any) -> None:
        settings.update(_plain(values))

    remember.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # read by typer
        [_option_parameter(option) for option in GLOBAL_OPTIONS]
    )
    app.callback(invoke_without_command=False, no_args_is_help=False)(remember)
    for verb in VERBS:
        declared = find(verb)
        if isinstance(declared, Group):
            app.add_typer(_group(declared, settings, carry_out), name=declared.name)
        elif declared is not None:
            _register(app, declared, settings, carry_out)
    return app


def _group(group: Group, settings: dict[str, Value], carry_out: CarryOut) -> typer.Typer:
    app = typer.Typer(help=group.summary, rich_markup_mode=None)
    default = group.default
    if default is not None:

        def run_default(context: typer.Context, **given: Any) -> int | None:
            if context.invoked_subcommand is None:
                values = {**default.defaults(), **_plain(given)}
                return carry_out(Line(default, settings, values))
            return None

        run_default.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # for typer
            [
                inspect.Parameter(
                    "context", inspect.Parameter.POSITIONAL_ONLY, annotation=typer.Context
                ),
                *(_option_parameter(option) for option in default.options),
            ]
        )
        app.callback(invoke_without_command=True, help=group.summary)(run_default)
    for command in group:
        _register(app, command, settings, carry_out)
    return app


def _register(
    app: typer.Typer, command: Command, settings: dict[str, Value], carry_out: CarryOut
) -> None:
    own_flags = {flag for option in command.options for flag in option.flags}

    def call(**given: Any) -> int:
        values = _plain(given)
        here = {name: value for name, value in values.items() if not name.startswith("global_")}
        for name, value in values.items():
            if name.startswith("global_") and value not in (None, (), False):
                _add(settings, name.removeprefix("global_"), value)
        return carry_out(Line(command, settings, {**command.defaults(), **here}))

    parameters = [_argument_parameter(argument) for argument in command.arguments]
    parameters += [_option_parameter(option) for option in command.options]
    for option in GLOBAL_OPTIONS:
        flags = tuple(flag for flag in option.flags if flag not in own_flags)
        if flags:
            parameters.append(
                _option_parameter(option, flags=flags, name=f"global_{option.name}", hidden=True)
            )
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # for typer
    app.command(
        command.name,
        help=command.summary,
        hidden=command.hidden,
        context_settings={"allow_interspersed_args": not command.passthrough},
    )(call)


def _add(settings: dict[str, Value], name: str, value: Value) -> None:
    """Lists given before the command and after it are one list."""
    before = settings[name]
    if isinstance(before, tuple) and isinstance(value, tuple):
        value = (*before, *value)
    settings[name] = value


def _option_parameter(
    option: Option,
    *,
    flags: tuple[str, ...] | None = None,
    name: str | None = None,
    hidden: bool = False,
) -> inspect.Parameter:
    types: dict[str, Any] = {"flag": bool, "text": str, "number": float, "list": list[str]}
    kind: Any = Literal[option.choices] if option.choices else types[option.kind]
    # A flag without a default is one of which nothing may be said.
    plain = option.kind == "list" or (option.kind == "flag" and option.default is not None)
    optional: Any = kind if plain else kind | None
    default: Any = [] if option.kind == "list" else option.default
    details = typer.Option(
        *(flags or option.flags),
        help=option.help,
        metavar=None if option.choices else option.metavar or None,
        hidden=hidden,
        show_default=False,
    )
    return inspect.Parameter(
        name or option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[optional, details],
    )


def _argument_parameter(argument: Argument) -> inspect.Parameter:
    kind: Any = list[str] if argument.many else str
    default: Any = inspect.Parameter.empty
    if not argument.required:
        default = [] if argument.many else None
        kind = kind if argument.many else kind | None
    metavar = f"[{argument.metavar}]..." if argument.many else argument.metavar
    completion = {"service": service_names, "source": source_names}.get(argument.name)
    details = typer.Argument(
        metavar=metavar, help=argument.help, show_default=False, autocompletion=completion
    )
    return inspect.Parameter(
        argument.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, details],
    )


def service_names(context: typer.Context, incomplete: str) -> list[str]:
    """The services of the stack that the line is about, for completion; none where its files
    cannot be read."""
    from specs.errors import SpecError
    from specs.loader import load_project

    try:
        project = load_project(_session(context).load_request()).project
    except (SpecError, OSError):
        return []
    names = sorted({*project.services, *project.disabled_services})
    return [name for name in names if name.startswith(incomplete)]


def source_names(context: typer.Context, incomplete: str) -> list[str]:
    """The git sources of the instance, for completion; none where no daemon answers."""
    from orchestrator.client import daemon
    from orchestrator.client.errors import ClientError

    try:
        client = daemon.answering(_session(context).run)
        found = client.get("/v1/gitops/sources") if client is not None else []
    except ClientError:
        return []
    return [source["name"] for source in found if source["name"].startswith(incomplete)]


def _session(context: typer.Context) -> Session:
    """The session that the line will have, as far as it is typed."""
    options = {option.name: option.default for option in GLOBAL_OPTIONS}
    given = {name: value for name, value in context.find_root().params.items() if value}
    options.update({name: value for name, value in _plain(given).items() if name in options})
    return Session(options, environ=os.environ, cwd=os.getcwd())


def _plain(values: dict[str, Any]) -> dict[str, Value]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


_NOT_HERE = {
    "alpha": "alpha commands are not provided; bay graph draws what alpha viz does",
    "bridge": "bridge is not provided: stacks are not converted to other orchestrators' files",
    "publish": "publish is not provided; bay push sends the images, and git the files",
}


def _sentence(exc: typer.TyperException) -> str:
    for name, text in _NOT_HERE.items():
        if exc.format_message().startswith(f"No such command '{name}'"):
            return text
    message = exc.format_message().strip().rstrip(".")
    return message[:1].lower() + message[1:].replace(". Did you mean", "; did you mean")


def _help_hint(exc: typer.TyperException) -> str:
    context = getattr(exc, "ctx", None)
    return f"{context.command_path if context else 'bay'} --help lists what there is"
