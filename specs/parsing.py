"""YAML text to a tree of nodes (`specs.source`).

libyaml composes the nodes (with positions); this module resolves scalars by YAML 1.2, expands
aliases within a budget, folds merge keys, refuses duplicate and non-string keys, and records
where `!reset` and `!override` stand.
"""

from __future__ import annotations

from typing import Any

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # the stubs leave the C parser out

from specs import scalars
from specs.errors import SpecError, SpecIssue
from specs.source import Document, Mark, Node, Path, Source, issue

# Nodes that aliases may add to a document, over those that are written in it.
ALIAS_BUDGET = 100_000
# Mappings and sequences within each other; real files stay below 12.
DEPTH_LIMIT = 100

_PLAIN = "?"
_QUOTED = "!"
_RESET = "!reset"
_OVERRIDE = "!override"


class _Composer(CParser):
    """libyaml's parser with a resolver that only notes whether a scalar is plain."""

    def descend_resolver(self, parent: Any, index: Any) -> None:
        """libyaml's binding calls this; paths do not matter here."""

    def ascend_resolver(self) -> None:
        """The counterpart of `descend_resolver`."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _QUOTED
        return _PLAIN


class _AnewComposer(yaml.composer.Composer):
    """PyYAML's composer on libyaml's events: an anchor may be set again, and the last one counts.

    That is what YAML 1.2 says (7.1); libyaml's own composer refuses it.
    """

    def __init__(self, events: _Composer) -> None:
        super().__init__()
        self.check_event = events.check_event
        self.peek_event = events.peek_event
        self.get_event = events.get_event
        self.resolve = events.resolve
        self.descend_resolver = events.descend_resolver
        self.ascend_resolver = events.ascend_resolver

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.AliasEvent):
            self.anchors.pop(event.anchor, None)
        return super().compose_node(parent, index)


def parse(source: Source) -> list[Document]:
    """Every document of `source`.

    Raises SpecError for text that is not YAML, duplicate keys, keys that are not strings,
    recursive or exploding aliases, and nesting beyond DEPTH_LIMIT.
    """
    documents = []
    for root in _compose(source):
        builder = _Builder(source)
        tree = builder.build(root, (), 0) if root is not None else None
        if builder.issues:
            raise SpecError(builder.issues)
        documents.append(Document(root=tree, resets=tuple(builder.resets)))
    return documents


def _compose(source: Source) -> list[yaml.Node | None]:
    text = source.text
    _refuse_deep_flow(source)
    try:
        try:
            return _nodes(text)
        except yaml.composer.ComposerError as exc:
            if "duplicate anchor" not in (exc.context or ""):
                raise
            return _nodes(text, anew=True)
    except RecursionError as exc:
        raise SpecError([issue("nested too deeply", mark=Mark(source, 1, 1))]) from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        if exc.context_mark is not None and "end of stream" in (exc.problem or ""):
            mark = exc.context_mark  # where what never ends began
        parts = [part for part in (exc.context, exc.problem) if part]
        place = Mark(source, mark.line + 1, mark.column + 1) if mark is not None else None
        raise SpecError([issue(": ".join(parts) or "invalid YAML", mark=place)]) from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        column = exc.position - (text.rfind("\n", 0, exc.position) + 1) + 1
        code = exc.character if isinstance(exc.character, int) else ord(exc.character[:1])
        message = f"character #x{code:04x} is not allowed in YAML"
        raise SpecError([issue(message, mark=Mark(source, line, column))]) from exc
    except yaml.YAMLError as exc:
        raise SpecError([issue(str(exc), mark=Mark(source, 1, 1))]) from exc


def _nodes(text: str, *, anew: bool = False) -> list[yaml.Node | None]:
    parser = _Composer(text)
    try:
        composer = _AnewComposer(parser) if anew else parser
        roots = []
        while composer.check_node():
            roots.append(composer.get_node())
        return roots
    finally:
        parser.dispose()


def _refuse_deep_flow(source: Source) -> None:
    # The C composer recurses once a level, so a file of brackets could exhaust its stack.
    # Brackets within quotes are counted too: 1,000 unbalanced ones are not a spec either way.
    depth = 0
    text = source.text
    if not (
        text.count("[") + text.count("{") >= 1000
        or text.count("- - ") >= DEPTH_LIMIT
        or text.count("? ? ") >= DEPTH_LIMIT
    ):
        return
    for number, line in enumerate(text.splitlines(), start=1):
        for opening, closing in ("[]", "{}"):
            depth += line.count(opening) - line.count(closing)
        if depth > 10 * DEPTH_LIMIT or max(line.count("- - "), line.count("? ? ")) >= DEPTH_LIMIT:
            raise SpecError([issue("nested too deeply", mark=Mark(source, number, 1))])


class _Builder:
    """Turns libyaml's node graph into a tree of Node."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.issues: list[SpecIssue] = []
        self.resets: list[Path] = []
        self._open: set[int] = set()
        self._built: set[int] = set()
        self._budget = ALIAS_BUDGET

    def _mark(self, node: yaml.Node) -> Mark:
        start = node.start_mark
        return Mark(self.source, start.line + 1, start.column + 1)

    def build(self, node: yaml.Node, path: Path, depth: int) -> Node | None:
        """The tree below `node`; None where `!reset` says to drop it."""
        tag = node.tag
        if tag == _RESET:
            self.resets.append(path)
            return None
        if tag == _OVERRIDE:
            self.resets.append(path)
        mark = self._mark(node)
        if isinstance(node, yaml.ScalarNode):
            if "\0" in node.value:
                # No file, variable or argument can have one.
                self._fail("a null character cannot stand in a spec", mark, path)
            return Node(self._scalar(node, mark), mark)
        identity = id(node)
        if identity in self._open:
            self._fail("alias refers to a value that contains it", mark, path)
            return None
        if depth > DEPTH_LIMIT:
            self._fail("nested too deeply", mark, path)
            return None
        if identity in self._built:
            self._budget -= len(node.value) + 1
            if self._budget < 0:
                self._fail(f"aliases expand to more than {ALIAS_BUDGET:,} values", mark, path)
                return None
        self._built.add(identity)
        self._open.add(identity)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, mark, path, depth)
            assert isinstance(node, yaml.SequenceNode), "libyaml composes three kinds of nodes"
            return self._sequence(node, mark, path, depth)
        finally:
            self._open.discard(identity)

    def _fail(self, message: str, mark: Mark, path: Path) -> None:
        # One alias bomb would otherwise report itself thousands of times.
        if len(self.issues) < 100:
            self.issues.append(issue(message, mark=mark, path=path))
        if self._budget < 0:
            raise SpecError(self.issues)

    def _scalar(self, node: yaml.ScalarNode, mark: Mark) -> scalars.Scalar:
        tag = node.tag
        if tag == _PLAIN:
            return scalars.resolve(node.value)
        if tag == _QUOTED:
            return str(node.value)
        plain = node.style is None
        if tag == _OVERRIDE:
            return scalars.resolve(node.value) if plain else str(node.value)
        try:
            return scalars.resolve_tagged(node.value, tag, plain=plain)
        except scalars.ScalarError as exc:
            self.issues.append(issue(str(exc), mark=mark))
            return None

    def _sequence(self, node: yaml.SequenceNode, mark: Mark, path: Path, depth: int) -> Node:
        items = []
        for index, child in enumerate(node.value):
            built = self.build(child, (*path, index), depth + 1)
            if built is not None:
                items.append(built)
        return Node(items, mark)

    def _mapping(self, node: yaml.MappingNode, mark: Mark, path: Path, depth: int) -> Node:
        entries: dict[str, Node] = {}
        seen: dict[str, int] = {}
        merges: list[tuple[yaml.Node, Mark]] = []
        for key_node, value_node in node.value:
            key_mark = self._mark(key_node)
            key = self._key(key_node, key_mark, path)
            if key is None:
                continue
            if key in seen:
                self.issues.append(
                    issue(
                        f"key {key!r} is already set at line {seen[key]}",
                        mark=key_mark,
                        path=(*path, key),
                    )
                )
                continue
            seen[key] = key_mark.line
            if key == "<<" and key_node.tag != _QUOTED:
                merges.append((value_node, key_mark))
                continue
            built = self.build(value_node, (*path, key), depth + 1)
            if built is not None:
                built.key_mark = key_mark
                entries[key] = built
        if merges:
            merged: dict[str, Node] = {}
            for value_node, key_mark in merges:
                self._fold(value_node, key_mark, path, depth, merged)
            entries = {**merged, **entries}
        return Node(entries, mark)

    def _key(self, node: yaml.Node, mark: Mark, path: Path) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.issues.append(issue("a key must be a string", mark=mark, path=path))
            return None
        value = self._scalar(node, mark)
        if not isinstance(value, str):
            self.issues.append(
                issue(
                    f"non-string key {node.value or 'null'}",
                    mark=mark,
                    path=path,
                    hint="put the key in quotes",
                )
            )
            return None
        return value

    def _fold(
        self,
        node: yaml.Node,
        mark: Mark,
        path: Path,
        depth: int,
        into: dict[str, Node],
    ) -> None:
        # Earlier mappings of a merge sequence win over later ones (YAML merge key type).
        candidates = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for candidate in candidates:
            if not isinstance(candidate, yaml.MappingNode):
                self._fail("<< takes a mapping or a sequence of mappings", mark, path)
                continue
            built = self.build(candidate, path, depth + 1)
            if built is not None:
                for key, child in built.value.items():
                    into.setdefault(key, child)
