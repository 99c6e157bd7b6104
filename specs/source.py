"""A tree in which every value knows its file, line and column.

`specs.parsing` makes it of YAML; it also records where `!reset` and `!override` stand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from specs.errors import SpecError, SpecIssue

Path = tuple[str | int, ...]


class Source:
    """A text that specs come from: `name` is how the person knows it (a path, or `<stdin>`)."""

    __slots__ = ("_lines", "name", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self._lines: list[str] | None = None

    def origin(self, line: int, column: int) -> tuple[int, int, str | None]:
        """Where a person finds a position: line, column and that line's text."""
        return line, column, self.line(line)

    def line(self, number: int) -> str | None:
        """The text of line `number`, counted from 1."""
        if self._lines is None:
            self._lines = self.text.splitlines()
        return self._lines[number - 1] if 0 < number <= len(self._lines) else None


class Mark(NamedTuple):
    """A position: line and column count from 1."""

    source: Source
    line: int
    column: int


class Node:
    """A value of the tree: a scalar, `dict[str, Node]` or `list[Node]`, and where it stands.

    `key_mark` is the position of the key that the value stands under, if there is one.
    """

    __slots__ = ("key_mark", "mark", "value")

    def __init__(self, value: Any, mark: Mark | None = None, key_mark: Mark | None = None) -> None:
        self.value = value
        self.mark = mark
        self.key_mark = key_mark

    def __repr__(self) -> str:
        return f"Node({self.plain()!r})"

    def plain(self) -> Any:
        """The same tree as plain dictionaries, lists and scalars."""
        value = self.value
        if type(value) is dict:
            return {key: child.plain() for key, child in value.items()}
        if type(value) is list:
            return [child.plain() for child in value]
        return value

    def copy(self) -> Node:
        """A deep copy; marks are shared, as they never change."""
        value = self.value
        if type(value) is dict:
            value = {key: child.copy() for key, child in value.items()}
        elif type(value) is list:
            value = [child.copy() for child in value]
        return Node(value, self.mark, self.key_mark)

    def size(self) -> int:
        """How many values there are below it, with itself."""
        found, pending = 0, [self]
        while pending:
            found += 1
            value = pending.pop().value
            if type(value) is dict:
                pending.extend(value.values())
            elif type(value) is list:
                pending.extend(value)
        return found

    def at(self, value: Any) -> Node:
        """A node with another value at the same place."""
        return Node(value, self.mark, self.key_mark)

    def find(self, path: Path) -> Node:
        """The node at `path`, or its deepest ancestor that exists."""
        node = self
        for step in path:
            value = node.value
            if type(value) is dict and step in value:
                node = value[step]
            elif type(value) is list and isinstance(step, int) and step < len(value):
                node = value[step]  # mypy needs the two cases apart
            else:
                break
        return node


def wrap(value: Any, mark: Mark | None = None) -> Node:
    """A tree of nodes around plain data, all of it at `mark`."""
    if isinstance(value, Node):
        return value
    if isinstance(value, dict):
        return Node({key: wrap(child, mark) for key, child in value.items()}, mark)
    if isinstance(value, list | tuple):
        return Node([wrap(child, mark) for child in value], mark)
    return Node(value, mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One YAML document: its tree (None when empty) and the paths to drop before it is merged."""

    root: Node | None
    resets: tuple[Path, ...] = field(default=())


def format_path(path: Path) -> str:
    """`("services", "web", "ports", 0)` as `services.web.ports[0]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


class Budget:
    """How many values may come of few in one load: by extending, including and ranges of ports."""

    def __init__(self, size: int = 400_000) -> None:
        self._size = self._left = size

    def spend(self, number: int, node: Node, path: Path) -> None:
        """Raises SpecError."""
        self._left -= number
        if self._left < 0:
            message = f"what is extended, included and ranges makes more than {self._size:,} values"
            raise SpecError([issue(message, node=node, path=path)])


def issue(
    message: str,
    *,
    node: Node | None = None,
    mark: Mark | None = None,
    path: Path | str = "",
    hint: str | None = None,
) -> SpecIssue:
    """A SpecIssue at `mark`, or where `node` stands."""
    place = mark or (node.mark or node.key_mark if node is not None else None)
    text = path if isinstance(path, str) else format_path(path)
    if place is None:
        return SpecIssue(message=message, path=text, hint=hint)
    line, column, source_line = place.source.origin(place.line, place.column)
    return SpecIssue(
        message=message,
        path=text,
        file=place.source.name,
        line=line,
        column=column,
        source_line=source_line,
        hint=hint,
    )
