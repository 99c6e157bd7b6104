"""Reads a command line against the declarations, without an argument parser.

The grammar is the usual one: `--name value`, `--name=value`, `-n value`, `-nvalue`,
`-abc` for flags, `--` ends the options, and global options may stand before the
command or after it (there the command's own options win: `logs -f` follows). What is
not understood raises `NotUnderstood`, and typer explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.cli.options import GLOBAL_OPTIONS, Argument, Command, Group, Option, Value


class NotUnderstood(Exception):
    """The line asks for help or is wrong; the message is for tests, not for people."""


class Line:
    """A parsed command line: `options` are the global ones, `values` the command's."""

    __slots__ = ("command", "options", "values")

    def __init__(
        self, command: Command, options: dict[str, Value], values: dict[str, Value]
    ) -> None:
        self.command = command
        self.options = options
        self.values = values


def parse(argv: Sequence[str], find: Callable[[str], Command | Group | None]) -> Line:
    """`argv` without the program's name; `find` gives the declaration of a verb."""
    shared = _by_flag(GLOBAL_OPTIONS)
    settings: dict[str, Value] = {option.name: option.default for option in GLOBAL_OPTIONS}
    index = _leading_options(argv, 0, shared, settings)
    if index == len(argv):
        raise NotUnderstood("no command")
    found = find(argv[index])
    index += 1
    if isinstance(found, Group):
        index = _leading_options(argv, index, shared, settings, lenient=True)
        verb = found.find(argv[index]) if index < len(argv) else None
        if verb is None and found.default is not None:
            verb, index = found.default, index - 1
        found, index = verb, index + 1
    if found is None:
        raise NotUnderstood("no such command")
    return _parse_command(found, argv[index:], shared, settings)


def _leading_options(
    argv: Sequence[str],
    index: int,
    by_flag: dict[str, Option],
    settings: dict[str, Value],
    *,
    lenient: bool = False,
) -> int:
    while index < len(argv) and argv[index].startswith("-") and argv[index] != "-":
        if lenient and argv[index].partition("=")[0] not in by_flag:
            break
        read, index = _read_options(argv, index, by_flag)
        for option, value in read:
            _store(option, value, settings)
    return index


def _parse_command(
    command: Command, argv: Sequence[str], shared: dict[str, Option], settings: dict[str, Value]
) -> Line:
    own = _by_flag(command.options)
    by_flag = {**shared, **own}
    values = command.defaults()
    positional: list[str] = []
    index = 0
    while index < len(argv):
        word = argv[index]
        if word == "--":
            positional.extend(argv[index + 1 :])
            break
        if word.startswith("-") and word != "-":
            read, index = _read_options(argv, index, by_flag)
            for option, value in read:
                _store(option, value, values if option in command.options else settings)
            continue
        if command.passthrough:
            positional.extend(argv[index:])
            break
        positional.append(word)
        index += 1
    _bind(command.arguments, positional, values)
    return Line(command, settings, values)


def _by_flag(options: tuple[Option, ...]) -> dict[str, Option]:
    return {flag: option for option in options for flag in option.flags}


def _read_options(
    argv: Sequence[str], index: int, by_flag: dict[str, Option]
) -> tuple[list[tuple[Option, Value]], int]:
    """The options in the word at `index` (`-abc` holds three), and the index after them."""
    word = argv[index]
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        option = _known(by_flag, name)
        if option.kind == "flag":
            return [(option, _boolean(value) if equals else True)], index + 1
        if equals:
            return [(option, value)], index + 1
        return [(option, _following(argv, index))], index + 2
    read: list[tuple[Option, Value]] = []
    letters = word[1:]
    while letters:
        option = _known(by_flag, "-" + letters[0])
        letters = letters[1:]
        if option.kind == "flag":
            read.append((option, True))
        elif letters:
            return [*read, (option, letters.removeprefix("="))], index + 1
        else:
            return [*read, (option, _following(argv, index))], index + 2
    return read, index + 1


def _known(by_flag: dict[str, Option], flag: str) -> Option:
    try:
        return by_flag[flag]
    except KeyError:
        raise NotUnderstood(f"no such option {flag}") from None


def _following(argv: Sequence[str], index: int) -> str:
    if index + 1 == len(argv):
        raise NotUnderstood(f"{argv[index]} needs a value")
    return argv[index + 1]


def _boolean(value: str) -> bool:
    if value.lower() in ("true", "1", "t", "yes"):
        return True
    if value.lower() in ("false", "0", "f", "no"):
        return False
    raise NotUnderstood(f"{value} is neither true nor false")


def _store(option: Option, value: Value, into: dict[str, Value]) -> None:
    if option.kind == "list":
        before = into[option.name]
        into[option.name] = (*(before if isinstance(before, tuple) else ()), str(value))
    elif option.kind == "number":
        try:
            into[option.name] = float(str(value))
        except ValueError:
            raise NotUnderstood(f"{value} is not a number") from None
    elif option.choices and value not in option.choices:
        raise NotUnderstood(f"{value} is not one of {', '.join(option.choices)}")
    else:
        into[option.name] = value


def _bind(arguments: tuple[Argument, ...], words: list[str], into: dict[str, Value]) -> None:
    for argument in arguments:
        if argument.many:
            if argument.required and not words:
                raise NotUnderstood(f"{argument.metavar} is missing")
            into[argument.name] = tuple(words)
            words = []
        elif words:
            into[argument.name] = words.pop(0)
        elif argument.required:
            raise NotUnderstood(f"{argument.metavar} is missing")
        else:
            into[argument.name] = None
    if words:
        raise NotUnderstood(f"unexpected argument {words[0]}")
