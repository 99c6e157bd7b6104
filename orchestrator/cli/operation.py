"""Runs a long operation of the daemon: sends it, shows its events, gives its result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any

from orchestrator.cli import progress
from orchestrator.cli.errors import UsageError
from orchestrator.cli.session import Session
from orchestrator.client.errors import ApiError, ProtocolError
from orchestrator.client.http import Response
from orchestrator.printable import printable

_UNKNOWN_PROJECT = ("NoSuchProject", "UnknownProject")


def follow(
    session: Session,
    response: Response,
    *,
    title: str,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    quiet: Collection[str] = (),
    silent: bool = False,
    left: str = "canceled: what was done stands, bay ps shows it",
) -> dict[str, Any]:
    """Show the events of `response` up to the result, which is returned, but for the types in
    `quiet`; `left` is said where Ctrl-C ends it.

    Raises ApiError when the result says failure. Ctrl-C leaves the connection, which
    the daemon takes as the wish to stop: running steps end, the rest is canceled.
    """
    result: dict[str, Any] | None = None
    shown = progress.Quiet() if silent else progress.choose(session, title)
    try:
        for event in response.events():
            if event["type"] == "result":
                result = event
                continue
            if session.dry_run and event["type"] == "plan":
                _foretell(session, event)
            if on_event is not None:
                on_event(event)
            if event["type"] not in quiet:
                shown.event(event)
    except KeyboardInterrupt:
        print(left, file=sys.stderr)
        raise
    finally:
        response.close()
        shown.close()
    if result is None:
        raise ProtocolError("the daemon's answer ends without a result")
    if not result["ok"]:
        error = dict(result.get("error") or {})
        error.setdefault("exit_code", result.get("exit_code"))
        if isinstance(shown, progress.Deferred) and error.get("output_tail"):
            # The display has taken its lines away again.
            print(str(error["output_tail"]).rstrip(), file=sys.stderr)
        raise ApiError.from_body(error)
    return result


def _foretell(session: Session, plan: dict[str, Any]) -> None:
    """Print the plan of an operation that is not carried out."""
    print(printable(plan["text"]).rstrip() or "nothing to do")
    session.changes = session.changes or not plan["empty"]


QUIET_PULL = ("pull",)
QUIET_BUILD = ("build", "progress")


def post(
    session: Session,
    path: str,
    body: dict[str, Any],
    *,
    title: str,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    response = session.client.stream("POST", path, body, **session.run_options)
    return follow(session, response, title=title, on_event=on_event)


class Stack:
    """The project that an operation is about, read from its files only when needed.

    `send` first relies on the daemon's memory of an unchanged load, and reads and sends
    the whole project when the daemon has none.
    """

    def __init__(self, session: Session, services: tuple[str, ...] = ()) -> None:
        self._session = session
        self._services = services
        load = session.remembered(services)
        self._inputs: dict[str, Any] | None = load["inputs"] if load else None
        self._project: dict[str, Any] | None = None
        self.name = str(load["project"]) if load else self._read()

    def _read(self) -> str:
        loaded = self._session.load(self._services)
        self._project = loaded.project.canonical()
        self._inputs = self._session.inputs(loaded, self._services)
        return str(loaded.project.name)

    def send(self, verb: str, options: dict[str, Any]) -> Response:
        path = self._session.project_path(verb, self.name)
        client, asked = self._session.client, self._session.run_options
        if self._project is None:
            response = client.stream("POST", path, self._body(options), **asked)
            if response.status != 404:
                return response
            try:
                response.json()
            except ApiError as exc:
                if exc.type not in _UNKNOWN_PROJECT:
                    raise
            self.name = self._read()
            path = self._session.project_path(verb, self.name)
        return client.stream("POST", path, self._body(options), **asked)

    def _body(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"project": self._project, "inputs": self._inputs, "options": options}


def scales(words: tuple[str, ...], flag: str = "--scale ") -> dict[str, int]:
    """`--scale web=3` as {"web": 3}."""
    wanted: dict[str, int] = {}
    for word in words:
        service, equals, count = word.partition("=")
        if not equals or not service or not count.isdigit():
            raise UsageError(f"{flag}{word}: it must be SERVICE=NUMBER")
        wanted[service] = int(count)
    return wanted
