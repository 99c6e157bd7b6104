"""`--format`: table, JSON, or the plain part of Go's templates that people use.

`{{.Name}}`, `{{.Name}}: {{.Status}}`, `table {{.ID}}\\t{{.Names}}`, `{{json .}}` and
`{{json .Name}}`. Whatever else a template may do is refused, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.cli import output
from orchestrator.cli.errors import UsageError

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_FIELD = re.compile(r"(json\s+)?\.(\w*)")
_ESCAPES = {r"\t": "\t", r"\n": "\n"}


class Shape:
    """How records are printed: JSON lines, or a template."""

    def __init__(self, template: str | None) -> None:
        self._template = template
        self._table = False
        if template is None:
            return
        text = template
        if text.startswith("table "):
            self._table, text = True, text.removeprefix("table ")
        for escape, plain in _ESCAPES.items():
            text = text.replace(escape, plain)
        self._text = text
        for action in _ACTION.findall(text):
            if not _FIELD.fullmatch(action):
                raise UsageError(
                    f"--format: {{{{{action}}}}} is not supported",
                    hint="fields such as {{.Name}}, {{json .}}, and before them the word table",
                )

    def show(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Print one line a record; raises UsageError for a field that there is not."""
        if self._template is None:
            for record in records:
                output.as_json(record)
        elif self._table:
            fields = [field for _, field in _FIELD.findall(" ".join(_ACTION.findall(self._text)))]
            heads = [_title(field) for field in fields]
            rows = [self._filled(record).split("\t") for record in records]
            if any(len(row) != len(heads) for row in rows):
                heads = [re.sub(r"\s*\{\{.*", "", " ".join(heads))]
                rows = [["\t".join(row)] for row in rows]
            output.table(heads, rows)
        else:
            for record in records:
                print(self._filled(record))

    def _filled(self, record: Mapping[str, Any]) -> str:
        def value(found: re.Match[str]) -> str:
            part = _FIELD.fullmatch(found[1])
            assert part is not None
            if not part[2]:
                return _json(record)
            if part[2] not in record:
                known = ", ".join(sorted(record))
                raise UsageError(f"--format: no field {part[2]}", hint=f"there are {known}")
            return _json(record[part[2]]) if part[1] else str(record[part[2]])

        return _ACTION.sub(value, self._text)


def of(format: str) -> Shape:
    """The shape that `--format` asks for, json or a template; raises UsageError."""
    if format == "json":
        return Shape(None)
    if "{{" not in format:
        raise UsageError(
            f"--format {format}: neither table, json nor a template with {{{{.Field}}}}"
        )
    return Shape(format)


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _title(field: str) -> str:
    """CreatedAt as CREATED AT, ID as it is."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", field).upper()
