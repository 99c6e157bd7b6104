"""Env files (`.env`, `--env-file`, `env_file:`, `label_file:`) in the ecosystem's dialect.

`KEY=value`, `KEY: value`, `export KEY=value`, a bare `KEY` (taken from the surroundings, left
out when unset), quotes (single: literal; double: escapes and `$` references; both may run over
several lines), ` #` comments after unquoted values. Source: Compose Specification, env_file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from specs.errors import SpecError, SpecIssue
from specs.interpolation import Interpolator, TemplateError
from specs.source import Source

Lookup = Callable[[str], str | None]

_SPACES = "\t\v\f\r \x85\xa0"
_KEY_CHARACTER = re.compile(r"[\w.\-\[\]]", re.UNICODE)
_EXPORT = re.compile(r"export\s+")
_ESCAPE = re.compile(r"\\(?:([abcfnrtv$\"\\])|0([0-7]{3}))")
_ESCAPES = {"a": "\a", "b": "\b", "c": "\\c", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
# Kept for the references that are expanded next, where `$$` is a dollar sign.
_ESCAPES["$"] = "$$"


class _Scanner:
    def __init__(self, source: Source, lookup: Lookup, known: dict[str, str]) -> None:
        self.source = source
        self.text = source.text.removeprefix("\ufeff").replace("\r\n", "\n")
        self.lookup = lookup
        self.values = known
        self.lines: dict[str, int] = {}
        self.position = 0

    def fail(self, message: str, position: int, hint: str | None = None) -> SpecError:
        # The line itself is not shown: it may well hold a password.
        line = self.text.count("\n", 0, position) + 1
        column = position - (self.text.rfind("\n", 0, position) + 1) + 1
        place = SpecIssue(
            message=message, file=self.source.name, line=line, column=column, hint=hint
        )
        return SpecError([place])

    def run(self) -> None:
        text = self.text
        while self.position < len(text):
            char = text[self.position]
            if char.isspace():
                self.position += 1
            elif char == "#":
                end = text.find("\n", self.position)
                self.position = len(text) if end < 0 else end
            else:
                self.statement()

    def statement(self) -> None:
        if match := _EXPORT.match(self.text, self.position):
            self.position = match.end()
        start = self.position
        key, inherited = self.key()
        if " " in key:
            raise self.fail("key cannot contain a space", start)
        self.lines[key] = self.text.count("\n", 0, start) + 1
        if inherited:
            value = self.lookup(key)
            if value is not None:
                self.values[key] = value
            return
        while self.position < len(self.text) and self.text[self.position] in _SPACES:
            self.position += 1
        value = self.value()
        if key:
            self.values[key] = value

    def key(self) -> tuple[str, bool]:
        text, start = self.text, self.position
        for position in range(start, len(text)):
            char = text[position]
            if char in _SPACES:
                continue
            if char in "=:\n":
                self.position = position + 1
                return text[start:position].rstrip(), char == "\n"
            if not _KEY_CHARACTER.match(char):
                raise self.fail(f"unexpected character {char!r} in variable name", position)
        self.position = len(text)
        return text[start:].rstrip(), True

    def value(self) -> str:
        quote = self.text[self.position : self.position + 1]
        if quote in ("'", '"') and quote:
            return self.quoted(quote)
        end = self.text.find("\n", self.position)
        end = len(self.text) if end < 0 else end
        start, raw = self.position, self.text[self.position : end]
        self.position = end
        return self.expand(raw.split(" #", 1)[0].rstrip(), start)

    def quoted(self, quote: str) -> str:
        start = self.position
        position = start + 1
        while True:
            position = self.text.find(quote, position)
            if position < 0:
                raise self.fail("unterminated quoted value", start)
            backslashes = 0
            while self.text[position - 1 - backslashes] == "\\":
                backslashes += 1
            if backslashes % 2 == 0:
                break
            position += 1
        raw = self.text[start + 1 : position]
        self.position = position + 1
        if quote == "'":
            return raw.replace("\\'", "'")
        return self.expand(_unescape(raw), start)

    def expand(self, template: str, position: int) -> str:
        def look(name: str) -> str | None:
            value = self.lookup(name)
            return value if value is not None else self.values.get(name)

        try:
            return Interpolator(look).substitute(template)
        except TemplateError as exc:
            message = str(exc) if exc.variable else "invalid interpolation format"
            raise self.fail(message, position, exc.hint) from exc


def _unescape(raw: str) -> str:
    def replace(match: re.Match[str]) -> str:
        char, octal = match.groups()
        return chr(int(octal, 8) & 0xFF) if octal else _ESCAPES.get(char, char)

    return _ESCAPE.sub(replace, raw)


def parse(source: Source, lookup: Lookup, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that `source` sets, and those of `known` before them.

    `lookup` finds the values of the surroundings: of bare keys, and of `$` references, for which
    it goes before the variables set so far in this file and in `known`.

    Raises SpecError with the line of the fault.
    """
    values, _ = parse_with_lines(source, lookup, known)
    return values


def parse_with_lines(
    source: Source, lookup: Lookup, known: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, int]]:
    """As `parse`, with the line (from 1) at which each variable of this file is set last."""
    values = dict(known or {})
    scanner = _Scanner(source, lookup, values)
    scanner.run()
    return values, scanner.lines


def parse_raw(source: Source) -> dict[str, str]:
    """The variables of a file in the `raw` format: `KEY=value` lines taken as they are."""
    values = {}
    for line in source.text.removeprefix("\ufeff").splitlines():
        text = line.lstrip()
        if not text or text.startswith("#") or "=" not in text:
            continue
        key, value = text.split("=", 1)
        values[key.strip()] = value
    return values
