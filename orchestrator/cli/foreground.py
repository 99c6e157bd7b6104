"""`bay up` without -d: follow the stack's output, and take it down with Ctrl-C.

The first Ctrl-C stops the containers gracefully, the second kills them, as Compose does.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from orchestrator.cli import operation, output
from orchestrator.cli.errors import UsageError
from orchestrator.cli.following import Follower
from orchestrator.cli.logs import Printer, Window, moment
from orchestrator.cli.menu import Detached, Menu, MenuPrinter, wanted
from orchestrator.cli.session import Session
from orchestrator.cli.watching import Watching
from orchestrator.cli.wish import Wish


class _Aborted(Exception):
    """A container ended whose end is to be the end of all."""

    def __init__(self, container: dict[str, Any]) -> None:
        self.container = container


def attach(
    session: Session,
    project: str,
    wish: Wish,
    *,
    since: float,
    prefix: bool,
    colour: bool,
    timestamps: bool,
    timeout: float | None,
    watching: Watching | None,
    menu: bool | None,
) -> int:
    """Follow until all containers have ended (status 0), one has ended that was to end all (its
    status), or Ctrl-C has stopped them (130). Meanwhile `watching` acts on changes of files; with
    it only Ctrl-C is an end. With a menu (`menu.wanted`) a key detaches (0) and another one turns
    the watching on and off."""
    watching = watching or Watching(session, wish.services)
    coloured = output.use_colour(session, sys.stdout)
    look = {"prefix": prefix, "colour": colour and coloured, "timestamps": timestamps}
    keys = None
    printer = Printer(**look)
    if wanted(menu, session.variables.get("COMPOSE_MENU"), colour=coloured):
        keys = Menu(sys.stdout, watching.word, lambda: watching.toggle(follower))
        watching.out.menu = keys
        printer = MenuPrinter(keys, **look)
    follower = Follower(session, project, wish.shown, printer, stay=watching.on, keys=keys)
    ended: set[str] = set()

    def tell(containers: list[dict[str, Any]]) -> None:
        shown = {container["id"] for container in wish.shown(containers)}
        for container in wish.involved(containers):
            if container["state"] != "exited":
                ended.discard(container["id"])
            elif container["id"] not in ended:
                ended.add(container["id"])
                if container["id"] in shown:
                    printer.note(container["name"], f"exited with code {container['exit_code']}")
                if wish.ends(container) and (output.seconds(container["finished_at"]) or 0) > since:
                    raise _Aborted(container)

    window = Window(since=moment(str(since), time.time()))
    try:
        with watching.acting(), keys.opened() if keys is not None else contextlib.nullcontext():
            follower.run(window, on_change=tell)
    except Detached:
        print(f"detached; the containers go on, bay -p {project} logs -f shows their output")
        return 0
    except KeyboardInterrupt:
        _take_down(session, project, wish, timeout)
        return 130
    except _Aborted as aborted:
        print("Aborting on container exit...", file=sys.stderr)
        _take_down(session, project, wish, timeout)
        return _status(session, project, wish.exit_code_from, aborted.container)
    return 0


def _status(session: Session, project: str, service: str | None, container: dict[str, Any]) -> int:
    """The exit status of `service`, or else of the container that ended first."""
    if service is None or service == container["service"]:
        return int(container["exit_code"])
    for other in session.client.get(session.project_path("containers", project), all=1):
        if other["service"] == service and not other.get("oneoff"):
            return int(other["exit_code"] or 0)
    raise UsageError(f"no such service, or no container of it: {service}")


def _take_down(session: Session, project: str, wish: Wish, timeout: float | None) -> None:
    named = list(wish.services)
    print("\nGracefully stopping... (press Ctrl+C again to force)", file=sys.stderr)
    try:
        operation.post(
            session,
            session.project_path("stop", project),
            {"services": named, "options": {"timeout": timeout}},
            title="stop",
        )
    except KeyboardInterrupt:
        operation.post(
            session,
            session.project_path("kill", project),
            {"services": named, "options": {"signal": "SIGKILL"}},
            title="kill",
        )
