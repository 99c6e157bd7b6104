"""What the loop says is documented, and reads like a sentence."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from orchestrator.watch import daemon, loop, service
from orchestrator.watch import report as report_module
from orchestrator.watch.report import JsonReport, TextReport, shown

DOCUMENT = Path(__file__).parents[3] / "docs" / "watch.md"


def text(event: str, service: str = "", **fields: object) -> str:
    out = io.StringIO()
    TextReport(out, colour=False, quiet=False, directory="/home/a").tell(event, service, **fields)
    return out.getvalue()


def test_an_object_a_line_whatever_is_in_it() -> None:
    out = io.StringIO()
    report = JsonReport(out)
    report.tell("output", "web", action="rebuild", line='two\nlines "and" more')
    report.tell("ended")

    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["line"] == 'two\nlines "and" more'
    assert (first["type"], first["service"], second["event"]) == ("watch", "web", "ended")
    assert "service" not in second


def test_every_event_that_is_told_is_documented() -> None:
    told: set[str] = set()
    for module in (daemon, loop, service):
        assert module.__file__ is not None
        told |= set(re.findall(r'\.tell\(\s*"(\w+)"', Path(module.__file__).read_text()))
    documented = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE))

    assert told <= documented
    assert "done" in told
    assert report_module.__doc__ is not None
    assert all(re.search(rf"^    {event} ", report_module.__doc__, re.MULTILINE) for event in told)


def test_what_was_done_is_one_line_with_the_time_since_the_save() -> None:
    paths = [f"/home/a/src/{number}.py" for number in range(5)]

    line = text("done", "web", action="sync", **shown(paths), bytes=5, seconds=0.0384, detail="")

    assert line == "web  synced in 38 ms: src/0.py, src/1.py, src/2.py and 2 more\n"


def test_a_failure_says_what_runs_all_the_same_and_what_to_do() -> None:
    line = text(
        "failed",
        "web",
        action="rebuild",
        message="Dockerfile:3: no",
        hint="say yes",
        seconds=1,
        running="web-1 still runs as before",
    )

    assert line == (
        "web  rebuild failed: Dockerfile:3: no; web-1 still runs as before\nweb  hint: say yes\n"
    )


@pytest.mark.parametrize("quiet", [True, False])
def test_the_output_of_builds_can_be_left_out(quiet: bool) -> None:
    out = io.StringIO()
    report = TextReport(out, colour=False, quiet=quiet, directory="/")
    report.tell("output", "web", action="rebuild", line="RUN make")

    assert out.getvalue() == ("" if quiet else "web  | RUN make\n")


def test_only_the_first_paths_are_told_with_their_number() -> None:
    told = shown(str(number) for number in range(5000))

    assert (len(told["paths"]), told["count"]) == (100, 5000)


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_name_that_is_no_text_is_told_to_a_strict_terminal(kind: str) -> None:
    name = "/home/a/src/\x1b[2J\n\udcff.py"
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8")
    strict: JsonReport | TextReport = JsonReport(out)
    if kind == "text":
        strict = TextReport(out, colour=False, quiet=False, directory="/home/a")
    strict.tell("done", "web", action="sync", **shown([name]), bytes=1, seconds=0.1, detail="")
    told = raw.getvalue().decode()
    if kind == "json":
        assert json.loads(told)["paths"] == [name]
    else:
        assert told == "web  synced in 100 ms: src/\\x1b[2J\\n\\xff.py\n"
