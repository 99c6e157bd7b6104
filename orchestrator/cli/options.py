"""How a command says which options and arguments it takes.

One declaration serves two parsers: the small one of `arguments`, which every
well-formed command line takes, and typer (`app`), which prints help, completes and
explains mistakes. This module and all that it imports start in well under a
millisecond, which rules out dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

Value = bool | str | int | float | None | tuple[str, ...]
Kind = str  # "flag" | "text" | "number" | "list"


class Option:
    """One option; `name` is the keyword under which `run` receives its value.

    kind "flag" gives a bool, "text" a str or None, "number" a float or None,
    "list" (may be repeated) a tuple of str. `choices` limits "text".
    """

    __slots__ = ("choices", "default", "flags", "help", "kind", "metavar", "name")

    def __init__(
        self,
        *flags: str,
        kind: Kind,
        help: str,
        name: str = "",
        default: Value = None,
        metavar: str = "",
        choices: tuple[str, ...] = (),
    ) -> None:
        self.flags = flags
        self.kind = kind
        self.help = help
        self.name = name or max(flags, key=len).lstrip("-").replace("-", "_")
        self.default = default
        self.metavar = metavar
        self.choices = choices


def flag(*flags: str, help: str, name: str = "") -> Option:
    return Option(*flags, kind="flag", help=help, name=name, default=False)


def text(
    *flags: str, help: str, name: str = "", default: str | None = None, metavar: str = "TEXT"
) -> Option:
    return Option(*flags, kind="text", help=help, name=name, default=default, metavar=metavar)


def choice(*flags: str, help: str, choices: tuple[str, ...], default: str | None = None) -> Option:
    return Option(*flags, kind="text", help=help, default=default, choices=choices)


def number(*flags: str, help: str, metavar: str = "SECONDS") -> Option:
    return Option(*flags, kind="number", help=help, metavar=metavar)


def repeated(*flags: str, help: str, name: str = "", metavar: str = "TEXT") -> Option:
    return Option(*flags, kind="list", help=help, name=name, default=(), metavar=metavar)


class Argument:
    """A positional argument; a `many` one takes all that is left, as a tuple."""

    __slots__ = ("help", "many", "metavar", "name", "required")

    def __init__(
        self, name: str, *, metavar: str = "", many: bool = False, required: bool = True, help: str
    ) -> None:
        self.name = name
        self.metavar = metavar or name.upper()
        self.many = many
        self.required = required
        self.help = help


class Command:
    """A verb: `run(session, **values)` returns the exit status.

    After the first positional argument of a `passthrough` command nothing is read
    as an option, so that `exec web ls -l` needs no `--`.
    """

    __slots__ = ("arguments", "hidden", "name", "options", "passthrough", "run", "summary")

    def __init__(
        self,
        name: str,
        run: Callable[..., int],
        *,
        summary: str,
        options: tuple[Option, ...] = (),
        arguments: tuple[Argument, ...] = (),
        passthrough: bool = False,
        hidden: bool = False,
    ) -> None:
        self.name = name
        self.run = run
        self.summary = summary
        self.options = options
        self.arguments = arguments
        self.passthrough = passthrough
        self.hidden = hidden

    def defaults(self) -> dict[str, Value]:
        return {option.name: option.default for option in self.options}


class Group:
    """A noun with verbs of its own (`volume ls`); `default` runs when no verb is given."""

    __slots__ = ("commands", "default", "name", "summary")

    def __init__(
        self, name: str, *commands: Command, summary: str, default: Command | None = None
    ) -> None:
        self.name = name
        self.summary = summary
        self.commands = commands
        self.default = default

    def find(self, name: str) -> Command | None:
        return next((command for command in self.commands if command.name == name), None)

    def __iter__(self) -> Iterator[Command]:
        return iter(self.commands)


GLOBAL_OPTIONS = (
    repeated("-f", "--file", name="files", help="Compose file (repeatable)", metavar="FILE"),
    text("-p", "--project-name", help="Project name", metavar="NAME"),
    text("--project-directory", help="Directory that relative paths start from", metavar="DIR"),
    repeated("--env-file", name="env_files", help="Environment file (repeatable)", metavar="FILE"),
    repeated("--profile", name="profiles", help="Profile to enable (repeatable)", metavar="NAME"),
    repeated(
        "--values", name="value_files", help="Values for templates (repeatable)", metavar="FILE"
    ),
    repeated("--set", name="settings", help="One value for templates", metavar="KEY=VALUE"),
    flag("--strict", help="Refuse attributes that have no effect, instead of naming them"),
    text("--root", help="State directory [/var/lib/bayplan]", metavar="DIR"),
    text("--run", help="Run-time directory [/run/bayplan]", metavar="DIR"),
    choice("--ansi", help="Colours and cursor control", choices=("auto", "never", "always")),
    number("--parallel", help="Most actions at once (-1: no bound) [16]", metavar="NUMBER"),
    flag("--dry-run", help="Show what would be done, and do nothing"),
    flag("--all-resources", help="Networks and volumes, too, that no service uses"),
    flag("--compatibility", help="Not supported: names of containers are joined by hyphens"),
    choice(
        "--progress",
        help="How progress is shown",
        choices=("auto", "tty", "plain", "json", "quiet"),
    ),
)
