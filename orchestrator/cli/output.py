"""What commands print: tables, JSON, ages and sizes, as Compose's users know them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from orchestrator.printable import printable, printable_line

if TYPE_CHECKING:
    from orchestrator.cli.session import Session
    from orchestrator.cli.templates import Shape


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], out: TextIO | None = None) -> None:
    """Columns as wide as their widest cell, three blanks between, no trailing blanks."""
    lines = [tuple(heads), *(tuple(map(printable_line, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("   ".join(cells).rstrip(), file=out or sys.stdout)


def as_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def shape(format: str | None) -> Shape | None:
    """How `--format` wants records printed; None for the command's own table."""
    if format in (None, "table"):
        return None
    from orchestrator.cli import templates

    return templates.of(str(format))


def write(rendered: str, path: str | None) -> None:
    """Print what a command rendered, or write it to the file `path`."""
    if path is None:
        print(rendered, end="" if rendered.endswith("\n") else "\n")
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(rendered)


def warn(message: str) -> None:
    print(f"warning: {printable(message)}", file=sys.stderr)


def use_colour(session: Session, stream: TextIO) -> bool:
    """Whether `stream` takes escape sequences: --ansi first, then NO_COLOR, then the terminal."""
    if session.ansi != "auto":
        return session.ansi == "always"
    return not session.environ.get("NO_COLOR") and stream.isatty()


def seconds(stamp: str | None) -> float | None:
    """An RFC 3339 time as seconds since the epoch; None where there is none."""
    if not stamp or stamp.startswith("0001-"):
        return None
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()


def age(stamp: str | None, now: float | None = None) -> str:
    """How long ago, in Docker's words ("3 minutes", "About an hour"); "" where unknown."""
    then = seconds(stamp)
    return "" if then is None else duration((time.time() if now is None else now) - then)


def duration(elapsed: float) -> str:
    """A length of time in Docker's words (docker/go-units HumanDuration)."""
    whole = int(elapsed)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(elapsed / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def size(count: int | None) -> str:
    """Bytes in decimal units, as `docker images` prints them ("113MB")."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}TB"


def short_id(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:12]
