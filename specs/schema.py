"""A small schema language: checks a tree of nodes, and prints itself as JSON Schema.

Why not a JSON Schema validator: faults need the file, line and column of the value, all of them
in one pass, in words a person would use, with "did you mean"; and loading must stay cheap.
Meaning follows JSON Schema 2020-12, where whole floats are integers and booleans are no numbers.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from specs.errors import SpecIssue
from specs.source import Mark, Node, Path, issue

JsonSchema = dict[str, Any]

_WORDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
    "null": "null",
    "object": "a mapping",
    "array": "a list",
}


def kind_of(value: Any) -> str:
    """The JSON type of a node's value; whole floats count as integers."""
    if type(value) is str:
        return "string"
    if type(value) is dict:
        return "object"
    if type(value) is list:
        return "array"
    if value is None:
        return "null"
    if type(value) is bool:
        return "boolean"
    if type(value) is int:
        return "integer"
    return "integer" if value.is_integer() else "number"


def suggest(word: str, known: Iterable[str]) -> str | None:
    """`did you mean "image"?`, when a known word is close to `word`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else None


class Type(Protocol):
    """A type of the schema language."""

    @property
    def kinds(self) -> frozenset[str]:
        """The JSON types that a value of this type may have."""

    def check(self, node: Node, path: Path, issues: list[SpecIssue]) -> None:
        """Appends what is wrong with `node` to `issues`."""

    def export(self, names: Mapping[int, str]) -> JsonSchema:
        """This type as JSON Schema; `names` gives the `$defs` names of shared types by id."""


def _mismatch(node: Node, path: Path, kinds: frozenset[str], issues: list[SpecIssue]) -> None:
    wanted = set(kinds)
    if "number" in wanted:
        wanted.discard("integer")
    words = [text for kind, text in _WORDS.items() if kind in wanted]
    listed = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    found = _WORDS[kind_of(node.value)]
    issues.append(issue(f"must be {listed}, not {found}", node=node, path=path))


def _reference(type_: Type, names: Mapping[int, str]) -> JsonSchema:
    name = names.get(id(type_))
    return {"$ref": f"#/$defs/{name}"} if name else type_.export(names)


class Scalar:
    """A string, number, boolean or null, within bounds where they are given."""

    def __init__(
        self,
        *kinds: str,
        enum: tuple[str, ...] = (),
        pattern: str | None = None,
        minimum: int | None = None,
        maximum: int | None = None,
    ) -> None:
        self.names = kinds
        self.kinds = frozenset({*kinds, "integer"} if "number" in kinds else kinds)
        self.enum = enum
        self.pattern = re.compile(pattern) if pattern else None
        self.minimum = minimum
        self.maximum = maximum

    def check(self, node: Node, path: Path, issues: list[SpecIssue]) -> None:
        value = node.value
        if kind_of(value) not in self.kinds:
            _mismatch(node, path, self.kinds, issues)
        elif type(value) is str:
            if self.enum and value not in self.enum:
                listed = ", ".join(self.enum)
                issues.append(
                    issue(
                        f"{value!r} is not one of {listed}",
                        node=node,
                        path=path,
                        hint=suggest(value, self.enum),
                    )
                )
            elif self.pattern and not self.pattern.search(value):
                issues.append(
                    issue(f"{value!r} does not match {self.pattern.pattern}", node=node, path=path)
                )
        elif self.minimum is not None and value < self.minimum:
            issues.append(issue(f"{value} is below {self.minimum}", node=node, path=path))
        elif self.maximum is not None and value > self.maximum:
            issues.append(issue(f"{value} is above {self.maximum}", node=node, path=path))

    def export(self, names: Mapping[int, str]) -> JsonSchema:
        schema: JsonSchema = {"type": self.names[0] if len(self.names) == 1 else list(self.names)}
        if self.enum:
            schema["enum"] = list(self.enum)
        if self.pattern:
            schema["pattern"] = self.pattern.pattern
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        return schema


class Anything:
    """A value of any type."""

    kinds = frozenset(_WORDS)

    def check(self, node: Node, path: Path, issues: list[SpecIssue]) -> None:
        """Nothing is wrong."""

    def export(self, names: Mapping[int, str]) -> JsonSchema:
        return {}


class List:
    """A list whose items have one type."""

    kinds = frozenset({"array"})

    def __init__(self, items: Type, *, unique: bool = False) -> None:
        self.items = items
        self.unique = unique

    def check(self, node: Node, path: Path, issues: list[SpecIssue]) -> None:
        if type(node.value) is not list:
            _mismatch(node, path, self.kinds, issues)
            return
        check = self.items.check
        for index, item in enumerate(node.value):
            check(item, (*path, index), issues)
        if self.unique and len(node.value) > 1:
            seen: dict[Any, int] = {}
            for index, item in enumerate(node.value):
                first = seen.setdefault(_identity(item), index)
                if first != index:
                    issues.append(
                        issue(f"item {index} repeats item {first}", node=item, path=(*path, index))
                    )

    def export(self, names: Mapping[int, str]) -> JsonSchema:
        schema: JsonSchema = {"type": "array", "items": _reference(self.items, names)}
        if self.unique:
            schema["uniqueItems"] = True
        return schema


def _identity(node: Node) -> Any:
    # JSON Schema's equality: 1 equals 1.0, but not true.
    value = node.value
    if type(value) is dict:
        return ("object", frozenset((key, _identity(child)) for key, child in value.items()))
    if type(value) is list:
        return ("array", tuple(_identity(child) for child in value))
    if type(value) is bool:
        return ("boolean", value)
    return value


class Object:
    """A mapping with known keys; `x-*` keys are free unless `extensions` is off."""

    def __init__(
        self,
        properties: Mapping[str, Type],
        *,
        required: tuple[str, ...] = (),
        extensions: bool = True,
        open: bool = False,
        nullable: bool = False,
    ) -> None:
        self.properties = dict(properties)
        self.required = required
        self.extensions = extensions
        self.open = open
        self.nullable = nullable
        self.kinds = frozenset({"object", "null"} if nullable else {"object"})

    def check(self, node: Node, path: Path, issues: list[SpecIssue]) -> None:
        value = node.value
        if value is None and self.nullable:
            return
        if type(value) is not dict:
            _mismatch(node, path, self.kinds, issues)
            return
        properties = self.properties
        for key, child in value.items():
            type_ = properties.get(key)
            if type_ is not None:
                type_.check(child, (*path, key), issues)
            elif not self.open and not (self.extensions and key.startswith("x-")):
                issues.append(
                    issue(
                        f'unknown key "{key}"',
                        mark=child.key_mark or child.mark,
                        path=path,
                        hint=suggest(key, [name for name in properties if name not in value])
                        or suggest(key, properties),
                    )
                )
        for key in self.required:
            if key not in value:
                issues.append(issue(f'key "{key}" is missing', mark=_head(node), path=path))

    def export(self, names: Mapping[int, str]) -> JsonSchema:
        schema: JsonSchema = {
            "type": ["object", "null"] if self.nullable else "object",
            "properties": {key: _reference(type_, names) for key, type_ in self.properties.items()},
        }
        if self.required:
            schema["required"] = list(self.required)
        if self.extensions:
            schema["patternProperties"] = {"^x-": {}}
        if not self.open:
            schema["additionalProperties"] = False
        return schema


class Map:
    """A mapping whose keys the person names; keys match `keys`, values have one type."""

    kinds = frozenset({"object"})

    def __init__(self, values: Type, *, keys: str = ".+", closed: bool = True) -> None:
        self.values = values
        self.keys = re.compile(keys)
        self.closed = closed

    def check(self, node: Node, path: Path, issues: list[SpecIssue]) -> None:
        if type(node.value) is not dict:
            _mismatch(node, path, self.kinds, issues)
            return
        search, check = self.keys.search, self.values.check
        for key, child in node.value.items():
            if search(key):
                check(child, (*path, key), issues)
            elif self.closed:
                issues.append(
                    issue(
                        f"name {key!r} does not match {self.keys.pattern}",
                        mark=child.key_mark or child.mark,
                        path=path,
                    )
                )

    def export(self, names: Mapping[int, str]) -> JsonSchema:
        schema: JsonSchema = {
            "type": "object",
            "patternProperties": {self.keys.pattern: _reference(self.values, names)},
        }
        if self.closed:
            schema["additionalProperties"] = False
        return schema


class OneOf:
    """One of several types, told apart by their JSON types, which must not overlap."""

    def __init__(self, *types: Type) -> None:
        self.types = types
        self.by_kind = {kind: type_ for type_ in types for kind in type_.kinds}
        self.kinds = frozenset(self.by_kind)

    def check(self, node: Node, path: Path, issues: list[SpecIssue]) -> None:
        type_ = self.by_kind.get(kind_of(node.value))
        if type_ is None:
            _mismatch(node, path, self.kinds, issues)
        else:
            type_.check(node, path, issues)

    def export(self, names: Mapping[int, str]) -> JsonSchema:
        return {"oneOf": [_reference(type_, names) for type_ in self.types]}


def _head(node: Node) -> Mark | None:
    return node.key_mark or node.mark
