"""The commands as declared: both parsers read them alike, and `run` takes what they give."""

import contextlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import app
from orchestrator.cli.arguments import Line, parse
from orchestrator.cli.options import GLOBAL_OPTIONS, Command, Group
from orchestrator.cli.table import VERBS, find


def _commands() -> Iterator[tuple[str, Command]]:
    for verb in VERBS:
        declared = find(verb)
        if isinstance(declared, Group):
            for command in declared:
                yield f"{verb} {command.name}", command
        elif declared is not None:
            yield verb, declared


_COMMANDS = dict(_commands())


def _typer(argv: list[str]) -> Line:
    """What typer makes of a command line."""
    lines: list[Line] = []

    def note(line: Line) -> int:
        lines.append(line)
        return 0

    assert app.run(argv, note) == 0
    return lines[0]


@pytest.mark.parametrize("name", _COMMANDS)
def test_run_takes_exactly_what_is_declared(name: str) -> None:
    command = _COMMANDS[name]
    given = [*command.defaults(), *(argument.name for argument in command.arguments)]

    inspect.signature(command.run).bind(object(), **dict.fromkeys(given))
    assert len(given) == len(set(given))


@pytest.mark.parametrize("name", _COMMANDS)
def test_both_parsers_give_the_same_for_every_option(name: str) -> None:
    command = _COMMANDS[name]
    argv = name.split()
    for option in (*GLOBAL_OPTIONS, *command.options):
        own = {flag for other in command.options for flag in other.flags}
        flags = [flag for flag in option.flags if option in command.options or flag not in own]
        for flag in flags[:2]:
            if option.kind == "flag":
                argv += [flag]
            else:
                value = option.choices[0] if option.choices else "3"
                argv += [flag, value]
    for argument in command.arguments:
        argv += ["first", "-x"] if command.passthrough and argument.many else ["first"]

    quick, slow = parse(argv, find), _typer(argv)

    assert quick.command is slow.command is command
    assert quick.values == slow.values
    assert quick.options == slow.options


def test_global_options_before_the_command_reach_it_through_both_parsers() -> None:
    argv = ["-f", "a.yaml", "-p", "shop", "--profile", "dev", "ps", "--profile", "test"]

    quick, slow = parse(argv, find), _typer(argv)

    assert quick.options == slow.options
    assert quick.options["profiles"] == ("dev", "test")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["pss"], "did you mean"),
        (["ps", "--nosuch"], "no such option"),
        (["exec", "web"], "missing argument"),
        (["images", "--format", "xml"], "xml"),
        (["--project-name"], "requires an argument"),
    ],
)
def test_a_mistake_is_one_line_a_hint_and_status_1(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = app.run(argv, lambda _: 0)

    message, hint = capsys.readouterr().err.splitlines()
    assert status == 1
    assert message.startswith("bay: ")
    assert words in message.lower()
    assert hint.startswith("hint: ")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([], lambda _: 0) == 0

    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in VERBS)


def test_services_are_completed_from_the_files_that_the_line_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.yaml").write_text(
        "services:\n  web: {image: a}\n  worker: {image: b}\n  db: {image: c}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_BAY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "bay -f other.yaml logs w")
    monkeypatch.setenv("COMP_CWORD", "4")

    with contextlib.suppress(SystemExit):
        app.run([], lambda _: 0)

    assert capsys.readouterr().out.split() == ["web", "worker"]
