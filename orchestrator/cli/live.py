"""The live display on a terminal: one line a resource, a spinner while it is being worked on."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.cli.progress import Moved, build_text

_MARKS = {
    "done": ("✔", "green"),
    "failed": ("✘", "red"),
    "skipped": ("-", "yellow"),
    "canceled": ("-", "yellow"),
}
_BUILD_LINES = 6
_REDRAWS = 12  # a second
_BAR = 20
_SHORTEST_BAR = 5
# In columns: how long something takes, what stands between the others, the words of a pull.
_SECONDS = 6
_BETWEEN = 2
_PULLING = len("Pulling    100.0MB / 100.0MB") + 1


class Live:
    """Keeps the latest event of each resource and the last lines of running builds."""

    def __init__(self, title: str, *, to: TextIO, colour: bool) -> None:
        self._title = title
        self._rows: dict[str, dict[str, Any]] = {}
        self._started: dict[str, float] = {}
        self._pulls: dict[str, Moved] = {}
        self._output: deque[str] = deque(maxlen=_BUILD_LINES)
        self._closing = False
        self._spinner = Spinner("dots", style="cyan")
        self._console = Console(file=to, no_color=not colour, highlight=False)
        self._live = RichLive(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=_REDRAWS,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def event(self, event: dict[str, Any]) -> None:
        if event["type"] in ("build", "progress"):
            self._output.append(build_text(event))
        elif event["type"] == "pull":
            self._pulls.setdefault(f"Image {event['image']}", Moved()).take(event)
        elif event["type"] == "step":
            resource = event.get("resource") or event["id"]
            self._started.setdefault(resource, time.monotonic())
            self._rows[resource] = event
            if event["status"] != "running":
                self._output.clear()

    def close(self) -> None:
        self._output.clear()
        self._closing = True
        self._live.stop()

    def _render(self) -> RenderableType:
        width = self._console.width
        grid = Table.grid(padding=(0, _BETWEEN, 0, 0))
        # Of a long name less is needed than of what becomes of it.
        name = max(16, width // 3)
        words = max(8, width - name - _SECONDS - 2 * _BETWEEN)
        length = words - _PULLING
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=name)
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=words)
        grid.add_column(justify="right", no_wrap=True, min_width=_SECONDS)
        rows = self._shown()
        for resource, event in rows:
            grid.add_row(
                self._name(resource, event["status"]),
                self._words(event, min(_BAR, length)),
                Text(self._elapsed(resource, event), style="blue"),
            )
        done = sum(event["status"] == "done" for event in self._rows.values())
        head = Text(f"[+] {self._title} {done}/{len(self._rows)}")
        tail = [Text(f"   {line}", style="dim", no_wrap=True) for line in self._output]
        if left := len(self._rows) - len(rows):
            tail.append(Text(f"   … {left} more", style="dim"))
        return Group(head, grid, *tail)

    def _shown(self) -> list[tuple[str, dict[str, Any]]]:
        """The rows for which the terminal has room: what is done goes first, the oldest first;
        in the end there are all."""
        rows = list(self._rows.items())
        # The head, the line that tells of the others, and the one that the cursor is on.
        room = max(1, self._console.height - 3 - len(self._output))
        excess = 0 if self._closing else len(rows) - room
        for finished in (True, False):
            for row in list(rows) if excess > 0 else ():
                if excess > 0 and (row[1]["status"] == "done") == finished:
                    rows.remove(row)
                    excess -= 1
        return rows

    def _name(self, resource: str, status: str) -> RenderableType:
        if status == "running":
            frame = self._spinner.render(time.monotonic())
            return (
                Text(" ")
                .append_text(frame if isinstance(frame, Text) else Text("•"))
                .append(f" {resource}")
            )
        mark, style = _MARKS.get(status, ("•", "white"))
        return Text(" ").append(mark, style=style).append(f" {resource}")

    def _words(self, event: dict[str, Any], length: int) -> Text:
        _, style = _MARKS.get(event["status"], ("", "cyan"))
        words = Text(str(event.get("text") or event["status"]), style=style)
        detail = event.get("detail")
        pulled = self._pulls.get(event.get("resource", ""))
        if pulled is not None and pulled.total and event["status"] == "running":
            if length >= _SHORTEST_BAR:
                words.append(f"  {bar(pulled, length)}", style="blue")
            words.append(f"  {pulled.text()}", style="dim")
        elif detail:
            words.append(f"  {detail}", style="dim")
        return words

    def _elapsed(self, resource: str, event: dict[str, Any]) -> str:
        seconds = event.get("seconds")
        if seconds is None:
            seconds = time.monotonic() - self._started[resource]
            if event["status"] != "running":
                return ""
        return f"{seconds:.1f}s"


def bar(moved: Moved, length: int) -> str:
    """How far a transfer is; unknown sizes count as nothing."""
    done = min(length, moved.current * length // moved.total) if moved.total else 0
    return "━" * done + "╌" * (length - done)
