"""How one instruction's line divides: its name, its flags, and its arguments by its own grammar.

Source: BuildKit frontend/dockerfile/docs/reference.md; where the reference is silent,
BuildKit's parser test cases decide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

_SPACE = re.compile(r"[\t\v\f\r ]+")


class Fault(Exception):
    """A fault in the instruction being parsed."""


def partition(text: str) -> tuple[str, str, str]:
    """The first word, the space after it, and the rest."""
    match = _SPACE.search(text)
    if match is None:
        return text, "", ""
    return text[: match.start()], match[0], text[match.end() :]


def flags_of(rest: str) -> tuple[tuple[str, ...], str]:
    """Split `--name=value` words off; `--` ends them."""
    flags: list[str] = []
    position = 0
    while True:
        while position < len(rest) and rest[position].isspace():
            position += 1
        if not rest.startswith("--", position):
            return tuple(flags), rest[position:]
        word, position = _flag_word(rest, position)
        if word == "--":
            return tuple(flags), rest[position:]
        flags.append(word)


def _flag_word(rest: str, position: int) -> tuple[str, int]:
    word: list[str] = []
    quote = ""
    while position < len(rest):
        char = rest[position]
        if not quote and char.isspace():
            break
        if char == "\\":
            position += 1
            if position < len(rest):
                word.append(rest[position])
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            word.append(char)
        position += 1
    return "".join(word), position


def split_words(rest: str, escape: str) -> list[str]:
    """Words by unquoted spaces; quotes and escapes stay in them."""
    words: list[str] = []
    word = ""
    quote = ""
    quoted = False
    position = 0
    while position < len(rest):
        char = rest[position]
        if not quote and char.isspace():
            if word or quoted:
                words.append(word)
            word, quoted = "", False
            position += 1
            continue
        if char == escape and quote != "'":
            if position + 1 == len(rest):
                break  # an escape at the end escapes nothing
            word += rest[position : position + 2]
            position += 2
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
            quoted = True
        word += char
        position += 1
    if word or quoted:
        words.append(word)
    return words


_Parsed = tuple[tuple[str, ...], bool]


def _pairs(rest: str, escape: str) -> _Parsed:
    """`name=value …`, or the old form `name value`; triples of name, value, separator."""
    words = split_words(rest, escape)
    if not words:
        return (), False
    if "=" not in words[0]:
        name, separator, value = partition(rest)
        if not separator:
            raise Fault(f"{name}: a name needs a value")
        return (name, value, ""), False
    args: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise Fault(f"cannot find = in {word!r}: it must be name=value")
        args += (name, value, "=")
    return tuple(args), False


def _names(rest: str, escape: str) -> _Parsed:
    return tuple(split_words(rest, escape)), False


def _spaced(rest: str, escape: str) -> _Parsed:
    return (tuple(_SPACE.split(rest)) if rest else ()), False


def _whole(rest: str, escape: str) -> _Parsed:
    return ((rest,) if rest else ()), False


def _json(rest: str) -> tuple[str, ...] | None:
    """The strings of a JSON array, None for what is not one."""
    if not rest.startswith("["):
        return None
    try:
        value = json.loads(rest)
    except ValueError:
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, str) for item in value):
        raise Fault("the array of the exec form may hold strings only")
    return tuple(value)


def _json_or_whole(rest: str, escape: str) -> _Parsed:
    if (found := _json(rest)) is not None:
        return found, True
    return _whole(rest, escape)


def _json_or_spaced(rest: str, escape: str) -> _Parsed:
    if (found := _json(rest)) is not None:
        return found, True
    return _spaced(rest, escape)


def _healthcheck(rest: str, escape: str) -> _Parsed:
    if not rest:
        return (), False
    kind, _, command = partition(rest)
    args, is_json = _json_or_whole(command.lstrip(), escape)
    return (kind, *args), is_json


GRAMMARS: dict[str, Callable[[str, str], _Parsed]] = {
    "add": _json_or_spaced,
    "arg": _names,
    "cmd": _json_or_whole,
    "copy": _json_or_spaced,
    "entrypoint": _json_or_whole,
    "env": _pairs,
    "expose": _spaced,
    "from": _spaced,
    "healthcheck": _healthcheck,
    "label": _pairs,
    "maintainer": _whole,
    "run": _json_or_whole,
    "shell": _json_or_whole,
    "stopsignal": _whole,
    "user": _whole,
    "volume": _json_or_spaced,
    "workdir": _whole,
}
INSTRUCTIONS = frozenset(GRAMMARS) | {"onbuild"}
