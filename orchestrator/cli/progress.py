"""Shows the events of a long operation: plain lines, JSON lines, nothing, or a live display.

Progress goes to standard error, so that standard output stays what a command prints, unless
COMPOSE_STATUS_STDOUT is on.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Protocol, TextIO

from orchestrator.cli import output
from orchestrator.cli.session import Session
from orchestrator.printable import printable, printable_line


class Progress(Protocol):
    """Takes the events of one operation as they come; `close` ends the display."""

    def event(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def choose(session: Session, title: str) -> Progress:
    """The display for this terminal and these options."""
    mode = session.progress
    to = sys.stdout if session.variables.on("COMPOSE_STATUS_STDOUT") else sys.stderr
    if mode == "auto":
        live = to.isatty() and session.environ.get("TERM") != "dumb"
        mode = "tty" if live and session.ansi != "never" else "plain"
    if mode == "json":
        return JsonLines(to)
    if mode == "quiet":
        return Quiet()
    if mode == "tty":
        return Deferred(session, title, to)
    return Plain(to)


class Quiet:
    def event(self, event: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class JsonLines:
    """Each event as it came, one JSON object a line."""

    def __init__(self, to: TextIO) -> None:
        self._to = to

    def event(self, event: dict[str, Any]) -> None:
        print(json.dumps(event, ensure_ascii=False), file=self._to, flush=True)

    def close(self) -> None:
        pass


class Plain:
    """A line for each change of a step, each line that a build prints, and each blob that has
    come."""

    def __init__(self, to: TextIO) -> None:
        self._to = to
        self._said: dict[str, str] = {}
        self._pulls: dict[str, Moved] = {}

    def event(self, event: dict[str, Any]) -> None:
        line = self._line(event)
        if line and self._said.get(event.get("resource", "")) != line:
            self._said[event.get("resource", "")] = line
            print(line, file=self._to, flush=True)

    def _line(self, event: dict[str, Any]) -> str:
        if event["type"] == "step":
            return f" {step_text(event)}"
        if event["type"] in ("build", "progress"):
            return build_text(event)
        if event["type"] == "warning":
            return warning_text(event)
        if event["type"] == "pull":
            moved = self._pulls.setdefault(event["image"], Moved())
            if moved.take(event) and event["current"] >= event["total"]:
                return f" Image {event['image']}  Pulling: {moved.text()}"
        return ""

    def close(self) -> None:
        pass


class Deferred:
    """A live display that costs nothing until there is a step to show."""

    def __init__(self, session: Session, title: str, to: TextIO) -> None:
        self._to = to
        self._session = session
        self._title = title
        self._live: Progress | None = None
        self._warnings: list[str] = []

    def event(self, event: dict[str, Any]) -> None:
        if event["type"] == "warning":
            self._warnings.append(warning_text(event))
            return
        if self._live is None:
            if event["type"] not in ("step", "build", "progress"):
                return
            from orchestrator.cli.live import Live

            self._live = Live(self._title, to=self._to, colour=self._session.ansi != "never")
        self._live.event(event)

    def close(self) -> None:
        if self._live is not None:
            self._live.close()
        # Below the display, which would draw over them.
        for line in self._warnings:
            print(line, file=self._to)


class Moved:
    """How much of the blobs of one image has been moved."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[int, int]] = {}

    def take(self, event: dict[str, Any]) -> bool:
        """Count a transfer's event in; whether it is about bytes."""
        if event["stage"] not in ("downloading", "uploading"):
            return False
        self._blobs[event["digest"]] = (event["current"], event["total"])
        return True

    @property
    def current(self) -> int:
        return sum(moved for moved, _ in self._blobs.values())

    @property
    def total(self) -> int:
        return sum(size for _, size in self._blobs.values())

    def text(self) -> str:
        return f"{output.size(self.current)} / {output.size(self.total)}"


def step_text(event: dict[str, Any]) -> str:
    """A step in one line: resource, what happens to it, and why where it failed."""
    text = event.get("text") or event["status"].capitalize()
    detail = event.get("detail")
    if event["status"] in ("failed", "skipped", "canceled") and detail:
        text = f"{text}: {detail}"
    return printable_line(f"{event.get('resource', '')}  {text}")


def warning_text(event: dict[str, Any]) -> str:
    hint = event.get("hint")
    return printable(f"warning: {event.get('message', '')}{f' ({hint})' if hint else ''}")


def build_text(event: dict[str, Any]) -> str:
    """A line of a build, after the service that it is for."""
    text = str(event.get("line") or event.get("step") or event.get("message") or "").rstrip()
    service = event.get("service")
    return f"{service} | {text}" if service and text else text
