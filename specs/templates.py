"""Specs that are Jinja2 templates (`compose.yaml.j2`): values, rendering, lines of errors.

Templates run in a sandbox, an undefined name is an error, and a position in the rendered text
is mapped back to the template's line. jinja2 is imported when the first template is met.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from specs import scalars
from specs.errors import SpecError, SpecIssue
from specs.source import Mark, Source, issue

if TYPE_CHECKING:
    from jinja2.lexer import TokenStream
    from jinja2.sandbox import SandboxedEnvironment

SUFFIX = ".j2"

# Private-use characters around a line number: they cannot stand in a template by accident.
_OPEN, _CLOSE = "\ue0d0", "\ue0d1"
_MARKER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")

# A template that renders more than this is a mistake or an attack.
_SIZE_LIMIT = 16 * 2**20
_MARKED_LIMIT = 4 * _SIZE_LIMIT

Render = Callable[[Source, Mapping[str, Any], bool], str]
"""Gives a template's text for values; with True every line carries the template's number for it.
Raises SpecError."""


def is_template(path: str) -> bool:
    """Whether the file at `path` is rendered before it is read as YAML."""
    return path.endswith(SUFFIX)


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`--set a.b=value` settings as nested values; a value is read as a YAML scalar.

    Raises SpecError.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        steps = name.split(".")
        if not separator or not all(step.isidentifier() for step in steps):
            raise SpecError([SpecIssue(message=f"{setting!r} is not of the form key=value")])
        place = values
        for step in steps[:-1]:
            child = place.setdefault(step, {})
            if not isinstance(child, dict):
                raise SpecError([SpecIssue(message=f"{setting!r} sets a key below a value")])
            place = child
        place[steps[-1]] = scalars.resolve(text) if text else ""
    return values


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two sets of values; mappings merge, the rest of `over` replaces."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            merged[key] = overlay(known, value)
        else:
            merged[key] = value
    return merged


class RenderedSource(Source):
    """The text that a template made; its positions are those of the template."""

    __slots__ = ("_origins", "_render", "_values", "template")

    def __init__(self, template: Source, values: Mapping[str, Any], render: Render) -> None:
        self.template = template
        self._values = values
        self._render = render
        self._origins: list[int] | None = None
        super().__init__(template.name, render(template, values, False))

    def origin(self, line: int, column: int) -> tuple[int, int, str | None]:
        if self._origins is None:
            self._origins = self._find_origins()
        number = self._origins[min(line, len(self._origins)) - 1] if self._origins else 1
        text = self.template.line(number)
        # Where the template changed the line, a column of the result points at nothing.
        return number, column if text == self.line(line) else 1, text

    def _find_origins(self) -> list[int]:
        origins = []
        current = 1
        for line in self._render(self.template, self._values, True).splitlines():
            if match := _MARKER.search(line):
                current = int(match.group(1))
            origins.append(current)
        return origins


def _environment(*, marked: bool) -> SandboxedEnvironment:
    import jinja2
    from jinja2.ext import Extension
    from jinja2.lexer import Token
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class LineMarkers(Extension):
        """Puts the number of each line of the template's text at the line's start."""

        def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
            for token in stream:
                if token.type == "data":
                    lines = token.value.split("\n")
                    text = "\n".join(
                        f"{_OPEN}{token.lineno + offset}{_CLOSE}{line}"
                        for offset, line in enumerate(lines)
                    )
                    yield Token(token.lineno, "data", text)
                else:
                    yield token

    class Sandbox(ImmutableSandboxedEnvironment):
        """Also keeps arithmetic from making values that do not fit into memory."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(
            self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
        ) -> Any:
            if operator == "**" and not _small_power(left, right):
                raise jinja2.exceptions.SecurityError("power is too large")
            if operator == "*" and _repeated_size(left, right) > _SIZE_LIMIT:
                raise jinja2.exceptions.SecurityError("repetition is too long")
            return super().call_binop(context, operator, left, right)

    return Sandbox(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[LineMarkers] if marked else [],
    )


def _small_power(left: Any, right: Any) -> bool:
    return isinstance(left, int | float) and isinstance(right, int | float) and abs(right) < 1000


def _repeated_size(left: Any, right: Any) -> int:
    sized, count = (left, right) if hasattr(left, "__len__") else (right, left)
    return len(sized) * count if hasattr(sized, "__len__") and isinstance(count, int) else 0


def render(template: Source, values: Mapping[str, Any], marked: bool) -> str:
    """A template's text, made in this process: a `Render`."""
    import jinja2

    limit = _MARKED_LIMIT if marked else _SIZE_LIMIT
    environment = _environment(marked=marked)
    try:
        code = environment.compile(template.text, template.name, template.name)
        compiled = jinja2.Template.from_code(
            environment, code, environment.make_globals({"values": values})
        )
        pieces = []
        size = 0
        for piece in compiled.generate(**values):
            size += len(piece)
            if size > limit:
                raise SpecError(
                    [issue("template renders more than 16 MiB", mark=Mark(template, 1, 1))]
                )
            pieces.append(piece)
    except jinja2.TemplateSyntaxError as exc:
        message = f"template: {(exc.message or 'syntax error').rstrip('.')}"
        raise SpecError([issue(message, mark=Mark(template, exc.lineno, 1))]) from exc
    except jinja2.UndefinedError as exc:
        message = f"template: {(exc.message or 'undefined value').rstrip('.')}"
        mark = Mark(template, _line_of(exc, template.name), 1)
        hint = "give it with --values FILE or --set key=value"
        raise SpecError([issue(message, mark=mark, hint=hint)]) from exc
    except MemoryError as exc:
        mark = Mark(template, _line_of(exc, template.name), 1)
        raise SpecError([issue("template takes too much memory", mark=mark)]) from exc
    except (
        jinja2.TemplateError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as exc:
        # The template is a program that the person wrote: its exceptions are faults of the spec.
        mark = Mark(template, _line_of(exc, template.name), 1)
        raise SpecError([issue(f"template: {exc}", mark=mark)]) from exc
    return "".join(pieces)


def _line_of(exc: BaseException, name: str) -> int:
    line = 1
    trace = exc.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
