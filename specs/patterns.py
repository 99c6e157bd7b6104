"""Tables keyed by attribute path, with `*` for any one step, walked together with a tree.

A table such as `{"services.*.command": rule}` becomes a trie, so that a pass over a tree only
goes where the table has something to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from specs.source import Node, Path

T = TypeVar("T")


class Patterns(Generic[T]):
    """A trie over path patterns; each node has a rule or none, and children by step."""

    __slots__ = ("any", "children", "rule")

    def __init__(self, table: Mapping[str, T] | None = None) -> None:
        self.rule: T | None = None
        self.children: dict[str, Patterns[T]] = {}
        self.any: Patterns[T] | None = None
        for pattern, rule in (table or {}).items():
            node: Patterns[T] = self
            for step in pattern.split("."):
                node = node._grow(step)
            node.rule = rule

    def _grow(self, step: str) -> Patterns[T]:
        if step == "*":
            if self.any is None:
                self.any = Patterns()
            return self.any
        return self.children.setdefault(step, Patterns())

    def step(self, name: str | int) -> Patterns[T] | None:
        """What the table has below `name`; a list's items match `*` only.

        No table has both a named child and `*` under one parent, so one match is enough.
        """
        if type(name) is str and name in self.children:
            return self.children[name]
        return self.any

    def at(self, path: Path) -> Patterns[T] | None:
        """The trie below `path`."""
        node: Patterns[T] | None = self
        for step in path:
            if node is None:
                return None
            node = node.step(step)
        return node


def matches(root: Node, table: Patterns[T], path: Path = ()) -> Iterator[tuple[Path, Node, T]]:
    """Every node of the tree whose path has a rule, parents before their children."""
    if table.rule is not None:
        yield path, root, table.rule
    value = root.value
    if type(value) is dict:
        if table.any is None:
            for name, below in table.children.items():
                child = value.get(name)
                if child is not None:
                    yield from matches(child, below, (*path, name))
        else:
            for name, child in list(value.items()):
                step = table.step(name)
                if step is not None:
                    yield from matches(child, step, (*path, name))
    elif type(value) is list and table.any is not None:
        for index, child in enumerate(list(value)):
            yield from matches(child, table.any, (*path, index))
