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
from orchestrator.cli.menu import Detached, Menu, MenuPrinter
from orchestrator.cli.session import Session
from orchestrator.cli.watching import Watching


class Wish:
    """Whose output is to be shown, and what is to happen when a container ends."""

    def __init__(
        self,
        *,
        services: tuple[str, ...],
        attach: tuple[str, ...],
        no_attach: tuple[str, ...],
        dependencies: bool,
        abort_on_exit: bool,
        abort_on_failure: bool,
        exit_code_from: str | None,
    ) -> None:
        if abort_on_exit and abort_on_failure:
            raise UsageError(
                "--abort-on-container-exit and --abort-on-container-failure exclude each other"
            )
        self.services = services
        self._attach = attach
        self._no_attach = no_attach
        self._dependencies = dependencies
        self.abort_on_exit = abort_on_exit or (exit_code_from is not None and not abort_on_failure)
        self.abort_on_failure = abort_on_failure
        self.exit_code_from = exit_code_from

    def check_detached(self, flag: str) -> None:
        """Raises UsageError where something was asked for that only a foreground up can do."""
        asked = {
            "--attach": self._attach,
            "--attach-dependencies": self._dependencies,
            "--exit-code-from": self.exit_code_from,
            "--abort-on-container-exit": self.abort_on_exit,
            "--abort-on-container-failure": self.abort_on_failure,
        }
        for name, value in asked.items():
            if value:
                raise UsageError(f"{flag} and {name} exclude each other")

    def check_watched(self) -> None:
        """Raises UsageError where the end of a container is to end everything: the dev loop
        ends containers all the time."""
        if self.abort_on_exit or self.abort_on_failure:
            raise UsageError(
                "--watch restarts containers; no end of one can be the end of all "
                "(--abort-on-container-exit, --abort-on-container-failure, --exit-code-from)"
            )

    def shown(self, containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those whose output is to be shown."""
        names = set(self._attach or self.services)
        if names and self._dependencies:
            names = _with_dependencies(names, containers)
        return [
            container
            for container in containers
            if not container.get("oneoff")
            and (container["service"] in names if names else True)
            and (container["attach"] or container["service"] in self._attach)
            and container["service"] not in self._no_attach
        ]

    def involved(self, containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those whose end may end everything."""
        names = _with_dependencies(set(self.services), containers)
        return [
            container
            for container in containers
            if not container.get("oneoff") and (not names or container["service"] in names)
        ]

    def ends(self, container: dict[str, Any]) -> bool:
        """Whether the end of this container is the end of all."""
        failed = container["exit_code"] != 0
        return self.abort_on_exit or (self.abort_on_failure and failed)


def _with_dependencies(names: set[str], containers: list[dict[str, Any]]) -> set[str]:
    needs = {container["service"]: container["depends_on"] for container in containers}
    found, pending = set(names), list(names)
    while pending:
        for dependency in needs.get(pending.pop(), ()):
            if dependency not in found:
                found.add(dependency)
                pending.append(dependency)
    return found


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
    watching: Watching,
    menu: bool = False,
) -> int:
    """Follow until all containers have ended (status 0), one has ended that was to end all (its
    status), or Ctrl-C has stopped them (130). Meanwhile `watching` acts on changes of files; with
    it only Ctrl-C is an end. With a `menu` a key detaches (0) and another one turns the watching
    on and off."""
    look = {
        "prefix": prefix,
        "colour": colour and output.use_colour(session, sys.stdout),
        "timestamps": timestamps,
    }
    keys = None
    printer = Printer(**look)
    if menu:
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
