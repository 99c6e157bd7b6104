"""Faults of a spec: every one of them, each with its path, file, line and column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecIssue:
    """One thing that is wrong, or worth a warning, in a spec.

    `path` is the attribute's path (`services.web.ports[0]`; empty for the whole document),
    `line` and `column` count from 1 (0 when unknown), `source_line` is the text of that line.
    """

    message: str
    path: str = ""
    file: str | None = None
    line: int = 0
    column: int = 0
    source_line: str | None = None
    hint: str | None = None

    @property
    def location(self) -> str:
        """`file:line:col`, as far as it is known."""
        if self.file is None:
            return ""
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}"

    def __str__(self) -> str:
        return self.describe()

    def describe(self, *, hint: bool = False) -> str:
        """Place, path and message, then the source line with a caret; with the hint if asked."""
        head = ": ".join(part for part in (self.location, self.path, self.message) if part)
        if hint and self.hint:
            head += f" ({self.hint})"
        if self.source_line is None or not self.line:
            return head
        text = self.source_line.rstrip()
        offset = max(self.column - 1, 0)
        if len(text) > 160:
            # A long line is cut around the caret, so that the caret still points at something.
            start = max(0, offset - 60)
            text = text[start : start + 120]
            offset -= start
        pad = "".join("\t" if char == "\t" else " " for char in text[:offset])
        return f"{head}\n    {text}\n    {pad}^"


class SpecError(Exception):
    """A spec was refused. `issues` holds every fault found, sorted by position.

    `hint` is set when there is one for all of them; otherwise each fault is told with its own.
    """

    def __init__(self, issues: Iterable[SpecIssue], *, hint: str | None = None) -> None:
        self.issues = tuple(
            sorted(issues, key=lambda i: (i.file or "", i.line, i.column, i.path, i.message))
        )
        self.hint = hint
        if hint is None:
            hints = {issue.hint for issue in self.issues if issue.hint}
            self.hint = hints.pop() if len(hints) == 1 else None
        own = self.hint is None
        super().__init__("\n".join(issue.describe(hint=own) for issue in self.issues))
