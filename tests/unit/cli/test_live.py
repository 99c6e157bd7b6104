"""The display of pulls and steps, as a person sees it on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.unit.cli.screen import Terminal, pipe

LONG = "registry.example.com/some/long/name/postgres:16.3-bookworm"
PROGRAM = """
import json, os, sys
from orchestrator.cli.live import Live
live = Live("up", to=sys.stderr, colour=True)
for line in os.fdopen(int(sys.argv[1])):
    live.event(json.loads(line))
live.close()
print("end")
"""


class Show:
    """A display in a process of its own, which is told of events."""

    def __init__(self, terminal: Terminal, to: Any) -> None:
        self.terminal = terminal
        self._to = to

    def step(self, resource: str, status: str, text: str, **more: Any) -> None:
        event = {"type": "step", "resource": resource, "status": status, "text": text, **more}
        print(json.dumps(event), file=self._to)

    def pull(self, image: str, layer: int, current: int, total: int) -> None:
        event = {
            "type": "pull",
            "image": image,
            "stage": "downloading",
            "digest": f"sha256:{layer}",
        }
        print(json.dumps({**event, "current": current, "total": total}), file=self._to)

    def close(self) -> list[str]:
        """What is there in the end."""
        self._to.close()
        return self.terminal.shows(lambda lines: "end" in lines)


@contextmanager
def display(width: int = 80, height: int = 24) -> Iterator[Show]:
    reading, to = pipe()
    argv = [sys.executable, "-c", PROGRAM, str(reading)]
    with to, Terminal(argv, width, height, pass_fds=[reading]) as terminal:
        os.close(reading)
        yield Show(terminal, to)


def line_of(lines: list[str], name: str) -> str:
    return next((line for line in lines if name in line), "")


def test_a_pull_shows_how_far_all_its_layers_are_and_ends_in_one_line() -> None:
    with display() as show:
        show.step(f"Image {LONG}", "running", "Pulling")
        for layer, current in enumerate((30, 0, 20)):
            show.pull(LONG, layer, current * 1_000_000, 100_000_000)
        lines = show.terminal.shows(lambda lines: "50MB / 300MB" in line_of(lines, "Image"))
        row = line_of(lines, "Image registry")
        assert "━━╌" in row and row.endswith("s"), row
        assert lines[0] == "[+] up 0/1"

        for layer in range(3):
            show.pull(LONG, layer, 100_000_000, 100_000_000)
        lines = show.terminal.shows(lambda lines: "300MB / 300MB" in line_of(lines, "Image"))
        assert "━" * 15 in line_of(lines, "Image") and "╌" not in line_of(lines, "Image")
        show.step(f"Image {LONG}", "done", "Pulled", seconds=3.21)
        lines = show.close()
    assert lines[0] == "[+] up 1/1"
    row = line_of(lines, "Image registry")
    assert row.startswith(" ✔ Image registry.example") and row.endswith("3.2s"), row
    assert "Pulled" in row and "━" not in row
    # Nothing of what was drawn before is left, and the cursor is back.
    assert [line for line in lines if line] == [lines[0], row, "end"]


def test_a_narrower_terminal_is_filled_and_never_overrun() -> None:
    with display() as show:
        show.step(f"Image {LONG}", "running", "Pulling")
        show.pull(LONG, 0, 50_000_000, 100_000_000)
        show.terminal.shows(lambda lines: "50MB / 100MB" in line_of(lines, "Image"))
        show.terminal.resize(60, 24)
        show.terminal.forget()
        lines = show.terminal.shows(lambda lines: "50MB / 100MB" in line_of(lines, "Image"))
        assert line_of(lines, "Image").endswith("s"), lines
        show.terminal.resize(40, 24)
        show.terminal.forget()
        lines = show.terminal.shows(lambda lines: "Pulling" in line_of(lines, "Image"))
        assert all(len(line) <= 40 for line in lines)
        assert line_of(lines, "Image").endswith("s")


def test_what_goes_on_is_seen_where_there_are_more_rows_than_lines() -> None:
    with display(height=12) as show:
        for number in range(30):
            show.step(f"Container web-{number}", "running", "Starting")
        for number in range(25):
            show.step(f"Container web-{number}", "done", "Started", seconds=0.1)
        lines = show.terminal.shows(lambda lines: lines[0] == "[+] up 25/30")
        for number in range(25, 30):
            assert "Starting" in line_of(lines, f"web-{number} ")
        assert "   … 21 more" in lines
        show.step("Container web-29", "failed", "Error", detail="no such file", seconds=1.0)
        lines = show.close()
    assert sum(line.startswith(" ✔ Container") for line in lines) == 25
    assert "✘ Container web-29" in line_of(lines, "web-29") and "no such file" in " ".join(lines)


def test_the_cursor_is_shown_again() -> None:
    with display() as show:
        show.step("Network n", "running", "Creating")
        show.terminal.shows(lambda lines: line_of(lines, "Network n"))
        assert not show.terminal.screen().cursor_shown
        show.close()
        assert show.terminal.screen().cursor_shown
