"""What the dev loop says: lines for a person, or one JSON object a line for an editor.

Every event has `type` ("watch"), `event`, `at` (seconds since the epoch) and, where it concerns
one, `service`. The events, and what else they hold:

    watching   services, paths                          it follows these from now on
    started    action, paths, count                     an action is begun
    output     action (rebuild, sync+exec), line        what a build or a command prints
    done       action, paths, count, bytes, seconds, detail   it is done; seconds since the save
    failed     action, message, hint, seconds, running  it failed; what runs all the same
    held       paths, seconds, message                  what a service writes itself is waited for
    spec       ok, message, hint                        the files were read again, and applied
    waiting    message                                  the daemon does not answer
    warning    message
    ended                                               it follows nothing any more

`paths` are the first hundred, `count` is how many there were.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from typing import Any, Protocol, TextIO

from orchestrator.printable import printable, printable_line

SHOWN = 100
_COLOURS = {"done": 32, "failed": 31, "warning": 33, "held": 33, "waiting": 33}


class Report(Protocol):
    """Takes events from any thread."""

    def tell(self, event: str, service: str = "", **fields: Any) -> None: ...


class JsonReport:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def tell(self, event: str, service: str = "", **fields: Any) -> None:
        told: dict[str, Any] = {"type": "watch", "event": event, "at": time.time()}
        if service:
            told["service"] = service
        told |= fields
        with self._lock:
            # In ASCII: a name need not be text that can be written.
            print(json.dumps(told), file=self._out, flush=True)


class TextReport:
    """Lines such as `web  synced app.py in 38 ms`; paths as seen from `directory`."""

    def __init__(self, out: TextIO, *, colour: bool, quiet: bool, directory: str) -> None:
        self._out = out
        self._colour = colour
        self._quiet = quiet
        self._directory = directory
        self._width = 0
        self._lock = threading.Lock()

    def tell(self, event: str, service: str = "", **fields: Any) -> None:
        if event == "output" and self._quiet:
            return
        text = self._text(event, fields)
        if not text:
            return
        with self._lock:
            self._width = max(self._width, len(service))
            head = f"{service.ljust(self._width)}  " if service else ""
            mark = _COLOURS.get(event)
            if self._colour and mark is not None:
                head = f"\x1b[{mark}m{head}\x1b[0m" if head else head
            # What a build or a command prints may be in colour; the rest is ours, and of names.
            for line in text.splitlines() if event == "output" else printable(text).split("\n"):
                print(head + line, file=self._out)
            self._out.flush()

    def _text(self, event: str, fields: dict[str, Any]) -> str:
        match event:
            case "watching":
                return f"watching {self._named(fields['paths'], len(fields['paths']))}"
            case "started" if fields["action"] == "rebuild":
                return (
                    f"rebuilding after a change of {self._named(fields['paths'], fields['count'])}"
                )
            case "output":
                return f"| {fields['line']}"
            case "done":
                return self._done(fields)
            case "failed":
                running = f"; {fields['running']}" if fields["running"] else ""
                hint = f"\nhint: {fields['hint']}" if fields["hint"] else ""
                return f"{fields['action']} failed: {fields['message']}{running}{hint}"
            case "spec":
                hint = f"\nhint: {fields['hint']}" if fields.get("hint") else ""
                return f"{fields['message']}{hint}"
            case "held" | "waiting" | "warning":
                prefix = "warning: " if event == "warning" else ""
                return prefix + str(fields["message"])
            case "ended":
                return "watch ended"
        return ""

    def _done(self, fields: dict[str, Any]) -> str:
        words = {
            "sync": "synced",
            "rebuild": "rebuilt",
            "restart": "restarted",
            "sync+restart": "synced and restarted",
            "sync+exec": "synced and executed",
        }
        named = self._named(fields["paths"], fields["count"])
        detail = f" ({fields['detail']})" if fields["detail"] else ""
        files = f": {named}" if named else ""
        return f"{words[fields['action']]} in {_duration(fields['seconds'])}{detail}{files}"

    def _named(self, paths: Iterable[str], count: int) -> str:
        """Up to three paths, and how many more there are."""
        first = [self._relative(path) for path in list(paths)[:3]]
        more = f" and {count - len(first)} more" if count > len(first) else ""
        return ", ".join(first) + more

    def _relative(self, path: str) -> str:
        prefix = self._directory.rstrip("/") + "/"
        near = path[len(prefix) :] if path.startswith(prefix) else os.path.normpath(path)
        return printable_line(near)


def shown(paths: Iterable[str]) -> dict[str, Any]:
    """`paths` and `count` of an event."""
    listed = list(paths)
    return {"paths": listed[:SHOWN], "count": len(listed)}


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
