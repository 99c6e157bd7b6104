"""Variable substitution in strings: `$V ${V} ${V-d} ${V:-d} ${V?e} ${V:?e} ${V+r} ${V:+r} $$`.

Source: the Compose Specification's interpolation page, and its reference implementation where
the page is silent: a word runs to the brace that closes it (only `${` nests), it must stay on
one line, and it is expanded only when it is used, so that an unused default never warns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from specs import patterns
from specs.casts import CASTS, CastError
from specs.errors import SpecIssue
from specs.source import Node, Path, issue

Lookup = Callable[[str], str | None]

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
# References within each other's words; real ones stay below 4.
_DEPTH_LIMIT = 50
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


class TemplateError(ValueError):
    """A string is not a valid template, or the required `variable` has no value."""

    def __init__(
        self, message: str, *, hint: str | None = None, variable: str | None = None
    ) -> None:
        self.hint = hint
        self.variable = variable
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable that a template refers to; the words are templates themselves."""

    name: str
    default: str = ""
    alternate: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class _Reference:
    name: str
    operator: str
    word: str


def _pieces(template: str) -> Iterator[str | _Reference]:
    """Literal text and references, in order. Raises TemplateError on a malformed reference."""
    position = 0
    while True:
        dollar = template.find("$", position)
        if dollar < 0:
            yield template[position:]
            return
        yield template[position:dollar]
        following = template[dollar + 1 : dollar + 2]
        if following == "$":
            yield "$"
            position = dollar + 2
        elif following == "{":
            reference, position = _braced(template, dollar)
            yield reference
        elif match := _NAME.match(template, dollar + 1):
            yield _Reference(match.group(), "", "")
            position = match.end()
        else:
            yield "$"
            position = dollar + 1


def _braced(template: str, dollar: int) -> tuple[_Reference, int]:
    match = _NAME.match(template, dollar + 2)
    end = _closing(template, dollar)
    if match is None or end < 0:
        raise _invalid(template)
    if match.end() == end:
        return _Reference(match.group(), "", ""), end + 1
    rest = template[match.end() : end]
    for operator in _OPERATORS:
        if rest.startswith(operator) and "\n" not in rest:
            return _Reference(match.group(), operator, rest[len(operator) :]), end + 1
    raise _invalid(template)


def _closing(template: str, start: int) -> int:
    depth = 0
    position = start
    while position < len(template):
        if template[position] == "}":
            depth -= 1
            if depth == 0:
                return position
        elif template.startswith("${", position):
            depth += 1
            position += 1
            if depth > _DEPTH_LIMIT:
                raise TemplateError("variables are nested too deeply")
        position += 1
    return -1


def _invalid(template: str) -> TemplateError:
    return TemplateError(
        f"invalid interpolation format {template!r}", hint="write $$ for a literal dollar sign"
    )


class Interpolator:
    """Substitutes variables that `lookup` finds; `unset` collects those without a value."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self.unset: dict[str, None] = {}

    def substitute(self, template: str) -> str:
        """`template` with every reference replaced. Raises TemplateError."""
        if "$" not in template:
            return template
        return "".join(
            piece if isinstance(piece, str) else self._expand(piece) for piece in _pieces(template)
        )

    def _expand(self, reference: _Reference) -> str:
        value = self._lookup(reference.name)
        match reference.operator:
            case ":-":
                return value if value else self.substitute(reference.word)
            case "-":
                return value if value is not None else self.substitute(reference.word)
            case ":+":
                return self.substitute(reference.word) if value else ""
            case "+":
                return self.substitute(reference.word) if value is not None else ""
            case ":?" | "?" as operator:
                if value is None or (operator == ":?" and not value):
                    message = self.substitute(reference.word)
                    raise TemplateError(
                        f"required variable {reference.name} is missing a value"
                        + (f": {message}" if message else ""),
                        hint=f"set {reference.name} in the environment or in .env",
                        variable=reference.name,
                    )
                return value
            case _:
                if value is None:
                    self.unset[reference.name] = None
                    return ""
                return value


def variables(template: str) -> Iterator[Variable]:
    """Every variable that `template` refers to, those within words too. Never raises."""
    if "$" not in template:
        return
    try:
        pieces = list(_pieces(template))
    except TemplateError:
        return
    for piece in pieces:
        if isinstance(piece, str):
            continue
        operator = piece.operator.removeprefix(":")
        yield Variable(
            name=piece.name,
            default=piece.word if operator == "-" else "",
            alternate=piece.word if operator == "+" else "",
            required=operator == "?",
        )
        yield from variables(piece.word)


def interpolate(
    root: Node, interpolator: Interpolator, *, issues: list[SpecIssue], warnings: list[SpecIssue]
) -> None:
    """Substitutes every string value below `root` in place and casts those at typed paths.

    Keys are left alone. Faults go to `issues`, one for each value; a variable that is not set
    goes to `warnings`, once.
    """
    known = set(interpolator.unset)
    for path, node in _strings(root, ()):
        try:
            node.value = interpolator.substitute(node.value)
        except TemplateError as exc:
            issues.append(issue(str(exc), node=node, path=path, hint=exc.hint))
        for name in interpolator.unset:
            if name not in known:
                known.add(name)
                message = f'the "{name}" variable is not set, defaulting to a blank string'
                warnings.append(issue(message, node=node, path=path))
    for path, node, cast in patterns.matches(root, CASTS):
        if type(node.value) is str:
            try:
                node.value = cast(node.value)
            except CastError as exc:
                issues.append(issue(str(exc), node=node, path=path))


def _strings(node: Node, path: Path) -> Iterator[tuple[Path, Node]]:
    value = node.value
    if type(value) is str:
        if "$" in value:
            yield path, node
    elif type(value) is dict:
        for key, child in value.items():
            if type(child.value) is not str or "$" in child.value:
                yield from _strings(child, (*path, key))
    elif type(value) is list:
        for index, child in enumerate(value):
            if type(child.value) is not str or "$" in child.value:
                yield from _strings(child, (*path, index))
