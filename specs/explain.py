"""Where a variable's value comes from: what set it, what that hides, and where it is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from specs.errors import SpecError
from specs.interpolation import variables
from specs.loader import LoadOptions, trace
from specs.parsing import parse
from specs.source import Node, Path, Source, format_path

ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value and what sets it: `environment`, or an env file and its line."""

    value: str
    origin: str
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A place of a spec that refers to the variable, with the words that stand beside it."""

    file: str
    line: int
    column: int
    path: str
    default: str
    alternate: str
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """`setting` counts (None: not set); `shadowed` are hidden by it, strongest first."""

    name: str
    setting: Setting | None
    shadowed: tuple[Setting, ...]
    uses: tuple[Use, ...]


def explain(name: str, options: LoadOptions) -> Explanation:
    """Explains the variable `name` for the load that `options` describe.

    The environment wins over env files, a later env file over an earlier one; the files of
    included directories come last, and count within those only.
    """
    found = trace(options)
    settings = []
    if name in options.environ:
        settings.append(Setting(value=options.environ[name], origin=ENVIRONMENT))
    seen = set()
    for layer in reversed(found.layers):
        if name in layer.values and layer.origin not in seen:
            seen.add(layer.origin)
            settings.append(
                Setting(
                    value=layer.values[name], origin=layer.origin, line=layer.lines.get(name, 0)
                )
            )
    uses = [
        use
        for source in found.sources
        for document in _documents(source)
        for use in _uses(document, (), name)
    ]
    return Explanation(
        name=name,
        setting=settings[0] if settings else None,
        shadowed=tuple(settings[1:]),
        uses=tuple(sorted(uses, key=lambda use: (use.file, use.line, use.column))),
    )


def _documents(source: Source) -> Iterator[Node]:
    try:
        documents = parse(source)
    except SpecError:
        return  # what is wrong with it is said when it is loaded
    for document in documents:
        if document.root is not None:
            yield document.root


def _uses(node: Node, path: Path, name: str) -> Iterator[Use]:
    value = node.value
    if type(value) is dict:
        for key, child in value.items():
            yield from _uses(child, (*path, key), name)
    elif type(value) is list:
        for index, child in enumerate(value):
            yield from _uses(child, (*path, index), name)
    elif type(value) is str and node.mark is not None:
        source, mark_line, mark_column = node.mark
        for variable in variables(value):
            if variable.name == name:
                line, column, _ = source.origin(mark_line, mark_column)
                yield Use(
                    file=source.name,
                    line=line,
                    column=column,
                    path=format_path(path),
                    default=variable.default,
                    alternate=variable.alternate,
                    required=variable.required,
                )
