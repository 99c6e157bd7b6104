"""One service's part of the dev loop: does one thing after the other, the newest wish first.

Everything that comes while something is being done becomes one piece of work. A rebuild puts an
end to a sync and to an older build. What was synced is remembered, so that a container that is
made anew gets what its image does not hold.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from orchestrator.engine.sync import Put, Synced
from orchestrator.watch.daemon import Daemon, Request, Superseded
from orchestrator.watch.echoes import Echoes
from orchestrator.watch.patterns import below
from orchestrator.watch.replicas import ContainerGone, Replicas
from orchestrator.watch.report import Report, shown
from orchestrator.watch.rules import Action, Rule
from orchestrator.watch.survey import survey
from orchestrator.watch.work import FileChange, Work

_DEAF = 0.3
"""Seconds that a restart waits for a program which does not listen to its stop signal: one that
has only just been started will by then, and the others never do."""

Describe = Callable[[BaseException], tuple[str, str | None, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a service is to be: its rules, and the bodies of requests about it.

    `body` is the project as the daemon takes it, `environ` what builds may know; `writable` are
    directories of the host that containers may write to; `left_out` are files that a first sync
    does not bring.
    """

    rules: tuple[Rule, ...]
    body: dict[str, Any]
    environ: dict[str, str] = field(default_factory=dict)
    writable: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()


class ServiceLoop:
    """Takes work from any thread and does it in one of its own, from `start` to `stop`.

    `prune` removes the image that a rebuild has replaced; `describe` gives message, hint and
    exit status of an exception.
    """

    def __init__(
        self,
        service: str,
        order: Order,
        *,
        daemon: Daemon,
        replicas: Replicas,
        report: Report,
        describe: Describe,
        prune: bool,
    ) -> None:
        self.service = service
        self._order = order
        self._daemon = daemon
        self._replicas = replicas
        self._report = report
        self._describe = describe
        self._prune = prune
        self._changed = threading.Condition()
        self._pending: Work | None = None
        self._look_again = True
        self._stopped = False
        self._request = Request()
        self._building = False
        self._owed: Work | None = None
        self._touched: dict[str, tuple[FileChange, bool]] = {}
        self._known: frozenset[str] = frozenset()
        self._echoes = Echoes()
        self._thread = threading.Thread(target=self._run, name=f"watch {service}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more work and leave what is under way; returns once that has ended."""
        with self._changed:
            self._stopped = True
            self._request.cancel()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def offer(self, work: Work) -> None:
        """Have this done, after or in place of what is under way."""
        with self._changed:
            if self._pending is None:
                self._pending = work
            else:
                self._pending.merge(work)
            if work.rebuild and self._building:
                self._request.cancel()
            self._changed.notify()

    def look(self) -> None:
        """Containers may have come or gone."""
        with self._changed:
            self._look_again = True
            self._changed.notify()

    def follow(self, order: Order) -> None:
        """Go by other rules, or another project, from now on."""
        with self._changed:
            self._order = order
            self._look_again = True
            self._changed.notify()

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopped or self._look_again or self._pending is not None
                )
                if self._stopped:
                    return
                looking, self._look_again = self._look_again, False
                work, self._pending = self._pending, None
                self._request = Request()
            began = time.monotonic()
            action = Action.SYNC if work is None else work.action
            try:
                if looking:
                    self._replicas.forget()
                    self._welcome(began)
                if work is not None and self._due(work):
                    action = work.action
                    self._carry_out(work)
            except Superseded:
                if work is not None:
                    self._owe(work)
            except Exception as exc:
                # The loop must outlive whatever it meets; all of it is shown.
                self._tell_failure(action, exc, began if work is None else work.since)

    def _due(self, work: Work) -> bool:
        """Whether to act; waits where the service seems to have caused the change itself."""
        paths = [
            path
            for path in work.triggers
            if any(below(directory, path) is not None for directory in self._order.writable)
        ]
        if not paths or len(paths) < len(work.triggers):
            return True
        verdict = self._echoes.judge(paths, work.since)
        if not verdict.suspects:
            return True
        where = ", ".join(verdict.suspects)
        told = f"{where} changes whenever {self.service} does; if it writes there itself, ignore it"
        if not verdict.act:
            self._report.tell(
                "held", self.service, **shown(paths), seconds=None, message=f"{told}; left alone"
            )
            return False
        self._report.tell(
            "held",
            self.service,
            **shown(paths),
            seconds=verdict.hold,
            message=f"{told}; waiting {verdict.hold:g} s",
        )
        self._wait_for_quiet(work, verdict.hold)
        return True

    def _wait_for_quiet(self, work: Work, seconds: float) -> None:
        with self._changed:
            while self._changed.wait_for(
                lambda: self._stopped or self._pending is not None, seconds
            ):
                if self._stopped:
                    raise Superseded
                assert self._pending is not None
                work.merge(self._pending)
                self._pending = None

    def _carry_out(self, work: Work) -> None:
        began = time.monotonic()
        self._report.tell("started", self.service, action=work.action, **shown(work.paths))
        if work.rebuild:
            self._owe(work)
        elif self._owed is not None:
            # The changes that a failed or overtaken rebuild has left come along.
            owed, self._owed = self._owed, None
            owed.merge(work)
            owed.rebuild = False
            work = owed
        try:
            synced, detail = self._act(work)
        except Superseded:
            raise
        except Exception:
            # It may have come far enough for the service to write.
            self._remember(work.action, began)
            raise
        ended = self._remember(work.action, began)
        self._report.tell(
            "done",
            self.service,
            action=work.action,
            **shown(work.paths),
            bytes=synced.bytes,
            seconds=round(ended - work.since, 4),
            detail=detail,
        )

    def _act(self, work: Work) -> tuple[Synced, str]:
        if work.rebuild:
            return self._rebuild()
        synced = self._sync(work)
        if work.restart:
            self._restart()
        return synced, self._execute(work)

    def _remember(self, action: Action, began: float) -> float:
        """The time at which an action has ended; the service may answer it by writing."""
        ended = time.monotonic()
        if action is not Action.SYNC:
            self._echoes.acted(began, ended)
        return ended

    def _sync(self, work: Work) -> Synced:
        changes = list(work.files.values())
        for change in changes:
            self._touched[change.target] = (change, work.restart)
        if not changes:
            return Synced()
        return self._apply(changes, self._replicas.ids)

    def _apply(self, changes: list[FileChange], ids: Collection[str]) -> Synced:
        synced = self._replicas.apply(changes, ids, self._wanted)
        meant = {change.target for change in changes if not _overtaken(change)}
        for target, reason in synced.skipped:
            if target in meant:
                self._report.tell("warning", self.service, message=f"{target}: {reason}")
        return synced

    def _restart(self) -> None:
        body = {"services": [self.service], "options": {"deaf_timeout": _DEAF}}
        self._daemon.run("restart", body, self._request)

    def _execute(self, work: Work) -> str:
        ran = 0
        for command in work.commands:
            ran = self._replicas.execute(command, self._output(Action.SYNC_EXEC), self._wanted)
        return "" if ran or not work.commands else "nothing runs to execute a command in"

    def _rebuild(self) -> tuple[Synced, str]:
        """Build, and bring the containers up on the new image; then all that is owed."""
        self._replicas.forget()
        before, images = self._replicas.ids, self._replicas.images
        order, output = self._order, self._output(Action.REBUILD)
        with self._changed:
            self._building = True
        try:
            asked = {"services": [self.service], "environ": order.environ}
            self._daemon.run(
                "build",
                {**order.body, "options": asked},
                self._request,
                lambda event: output(_build_line(event)),
            )
        finally:
            with self._changed:
                self._building = False
        # As in Compose, containers are new also where the image is the one that was, and what
        # depends on them with `restart: true` comes along.
        options = {
            "services": [self.service],
            "no_deps": True,
            "no_build": True,
            "force_recreate": True,
            "restart_dependents": True,
        }
        self._daemon.run("up", {**order.body, "options": options}, self._request)
        self._replicas.forget()
        after = self._replicas.ids
        work, self._owed = self._owed, None
        assert work is not None
        synced = self._apply(list(work.files.values()), after & before)
        if work.restart and after & before:
            self._restart()
        self._welcome(work.since)
        detail = self._execute(work)
        present = self._replicas.images
        for image in images - present if self._prune else ():
            self._daemon.remove_image(image)
        return synced, detail or ("" if present != images else "the image is as it was")

    def _welcome(self, since: float) -> None:
        """Bring containers that are new what their image does not hold."""
        ids = self._replicas.ids
        self._known &= ids
        if ids <= self._known:
            return
        wanted = self._lasting()
        puts = [change for change, _ in wanted.values() if isinstance(change, Put)]
        gone = [change for change, _ in wanted.values() if not isinstance(change, Put)]
        brought: dict[str, None] = {}
        restart = False
        size = 0
        for id in sorted(ids - self._known):
            try:
                differing = self._replicas.differing(puts, id)
            except ContainerGone:
                continue  # or not quite there yet, which is told, too
            if differing or gone:
                size += self._apply([*gone, *differing], (id,)).bytes
            brought |= dict.fromkeys(str(put.source) for put in differing)
            restart |= any(wanted[put.target][1] for put in differing)
            self._known |= {id}
        if restart:
            self._restart()
        if brought:
            self._report.tell(
                "done",
                self.service,
                action=Action.SYNC_RESTART if restart else Action.SYNC,
                **shown(brought),
                bytes=size,
                seconds=round(time.monotonic() - since, 4),
                detail="a first sync",
            )

    def _lasting(self) -> dict[str, tuple[FileChange, bool]]:
        """By target what every container is to have, and whether it needs a restart for that:
        all files of rules with a first sync, and what has been synced since."""
        wanted: dict[str, tuple[FileChange, bool]] = {}
        for rule in self._order.rules:
            if rule.initial_sync and rule.action.syncs and not rule.mounted:
                for put in survey(rule, self._order.left_out):
                    wanted[put.target] = (put, rule.action.restarts)
        return wanted | self._touched

    def _owe(self, work: Work) -> None:
        """Note what is still to be done, with the next thing that is."""
        for change in work.files.values():
            self._touched[change.target] = (change, work.restart)
        if self._owed is None:
            self._owed = Work(since=work.since)
        self._owed.merge(work)

    def _wanted(self) -> bool:
        with self._changed:
            return not (self._stopped or (self._pending is not None and self._pending.rebuild))

    def _output(self, action: Action) -> Callable[[str], None]:
        def tell(line: str) -> None:
            if line:
                self._report.tell("output", self.service, action=action, line=line)

        return tell

    def _tell_failure(self, action: Action, error: Exception, since: float) -> None:
        message, hint, _ = self._describe(error)
        self._report.tell(
            "failed",
            self.service,
            action=action,
            message=message,
            hint=hint,
            seconds=round(time.monotonic() - since, 4),
            running=self._replicas.standing(),
        )


def _overtaken(change: FileChange) -> bool:
    """Whether the host's file has gone since, which comes as a change of its own."""
    return isinstance(change, Put) and not os.path.lexists(change.source)


def _build_line(event: dict[str, Any]) -> str:
    if event["type"] == "warning":
        return f"warning: {event.get('message', '')}"
    return str(event.get("line") or "").rstrip() if event["type"] == "build" else ""
