"""What others have named or written cannot steer a terminal, nor end a command."""

from __future__ import annotations

import io

import pytest

from orchestrator.cli import output, progress, sources
from orchestrator.cli.errors import UsageError, report
from orchestrator.printable import printable, printable_line

HOSTILE = "\x1b]0;owned\x07 \x9b2J \u202eevil \udcff\r"
SPELLED = r"\x1b]0;owned\x07 \x9b2J \u202eevil \xff\x0d"


@pytest.mark.parametrize("text", ["plain", "größer 🐳 日本 👩‍🚀", "a\n\tb"])
def test_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_orders_for_a_terminal_are_spelled_out() -> None:
    assert printable(HOSTILE) == SPELLED
    assert printable_line("a\nb\tc") == r"a\nb\tc"


def test_an_error_is_printed_without_them(capsys: pytest.CaptureFixture[str]) -> None:
    report(UsageError(HOSTILE, hint=HOSTILE))
    assert capsys.readouterr().err == f"bay: {SPELLED}\nhint: {SPELLED}\n"


def test_tables_and_sources_are_printed_without_them() -> None:
    out = io.StringIO()
    output.table(("A", "B"), [(HOSTILE, "x\ny")], out)
    assert out.getvalue().splitlines()[1] == rf"{SPELLED}   x\ny"
    source = {"name": "shop", "state": "Failed", "last_applied": None, "message": HOSTILE}
    assert sources.line(source) == f"shop: Failed: {SPELLED}"


def test_steps_and_warnings_are_printed_without_them() -> None:
    out = io.StringIO()
    shown = progress.Plain(out)
    step = {"type": "step", "status": "failed", "resource": "Container a", "detail": HOSTILE}
    shown.event(step)
    shown.event({"type": "warning", "message": HOSTILE})
    assert out.getvalue() == f" Container a  Failed: {SPELLED}\nwarning: {SPELLED}\n"
