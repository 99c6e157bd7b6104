"""YAML out, in the form that Compose prints: block style, two spaces, quotes where needed.

Strings stay plain only if every YAML 1.1 and 1.2 parser reads them back as strings.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import yaml

from specs import golang, scalars

_OLD_BOOLEANS = frozenset(
    word
    for text in ("y", "yes", "n", "no", "on", "off")
    for word in (text, text.capitalize(), text.upper())
)
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?")

_STRING_TAG = "tag:yaml.org,2002:str"


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, and leaves the choice of quotes to this module."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def determine_block_hints(self, text: str) -> str:
        hints = str(super().determine_block_hints(text))
        # Without the indicator, a reader takes the indentation of the first line that has text.
        return hints if text.lstrip("\n")[:1] == " " else hints.replace("2", "")

    def write_double_quoted(self, text: str, split: bool = True) -> None:
        # As libyaml folds: at a single space past the width, without a backslash.
        self.write_indicator('"', True)
        spaces = False
        for position, char in enumerate(text):
            if char == " ":
                fold = split and not spaces and 0 < position < len(text) - 1
                if fold and self.column > self.best_width:
                    self.write_indent()
                    self._put("\\" if text[position + 1] == " " else "")
                else:
                    self._put(" ")
                spaces = True
            else:
                self._put(_escape(char))
                spaces = False
        self.write_indicator('"', False)

    def _put(self, text: str) -> None:
        self.column += len(text)
        self.stream.write(text)
        self.whitespace = self.indention = False

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _STRING_TAG
        return super().resolve(kind, value, implicit)  # type: ignore[no-any-return, no-untyped-call]  # PyYAML is untyped


def _escape(char: str) -> str:
    if char in yaml.SafeDumper.ESCAPE_REPLACEMENTS and char != "/":
        return "\\" + yaml.SafeDumper.ESCAPE_REPLACEMENTS[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code <= 0xFF:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"


def emit(value: Mapping[str, Any]) -> str:
    """`value` as a YAML document; mappings keep their order."""
    text: str = yaml.serialize(_node(value), Dumper=_Dumper, width=80, allow_unicode=True, indent=2)
    return text


def _node(value: Any) -> yaml.Node:
    if isinstance(value, Mapping):
        return yaml.MappingNode(
            "tag:yaml.org,2002:map",
            [(_scalar(str(key)), _node(item)) for key, item in value.items()],
            flow_style=not value,
        )
    if isinstance(value, list | tuple):
        return yaml.SequenceNode(
            "tag:yaml.org,2002:seq", [_node(item) for item in value], flow_style=not value
        )
    return _scalar(value)


def _scalar(value: Any) -> yaml.ScalarNode:
    if isinstance(value, str):
        return yaml.ScalarNode(_STRING_TAG, value, style=_style(value))
    if isinstance(value, float):
        text = golang.format_float(value)
        special = {"NaN": ".nan", "+Inf": ".inf", "-Inf": "-.inf"}
        return yaml.ScalarNode(_STRING_TAG, special.get(text, text))
    text = "null" if value is None else str(value).lower()
    return yaml.ScalarNode(_STRING_TAG, text)


@functools.lru_cache(maxsize=4096)
def _style(text: str) -> str | None:
    if "\n" in text:
        return "|"
    if (
        not isinstance(scalars.resolve(text), str)
        or _DATE.fullmatch(text)
        or _NOT_FINITE.fullmatch(text)
    ):
        return '"'
    if text in _OLD_BOOLEANS or text == "<<" or _SEXAGESIMAL.fullmatch(text):
        return "'"
    return None
