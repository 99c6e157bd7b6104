"""The dev loop: watches files, divides what changed among the services, and reads the spec again.

One thread waits for changes, one per service acts on them, one hears of the project's containers
and one applies a changed spec, so that nothing waits for what it does not need.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from orchestrator.client.errors import ClientError
from orchestrator.client.http import Response
from orchestrator.watch.daemon import Daemon, Request, Superseded
from orchestrator.watch.replicas import Replicas
from orchestrator.watch.report import Report
from orchestrator.watch.service import Describe, ServiceLoop
from orchestrator.watch.spec import Course, Spec, Wishes, course
from orchestrator.watch.watching import Batch, Watching
from orchestrator.watch.work import divide

_RETRY = 0.5  # seconds between attempts to hear of containers again
_NEWS = frozenset(("create", "destroy", "rename"))


class DevLoop:
    """From `prepare` on changes are noted, from `start` to `stop` they are acted on.

    `load` reads the spec files as they are now; `describe` gives message, hint and exit status of
    an exception; `root` and `run` are the instance's directories.
    """

    def __init__(
        self,
        *,
        daemon: Daemon,
        report: Report,
        load: Callable[[], Spec],
        describe: Describe,
        wishes: Wishes,
        root: Path,
        run: Path,
        prune: bool = True,
        poll: bool = False,
    ) -> None:
        self._daemon = daemon
        self._report = report
        self._load = load
        self._describe = describe
        self._wishes = wishes
        self._root = root
        self._run_directory = run
        self._prune = prune
        self._watching = Watching(self._warn, poll=poll)
        self._lock = threading.Lock()
        self._course: Course | None = None
        self._next_course: Course | None = None
        self._services: dict[str, ServiceLoop] = {}
        self._news: Response | None = None
        self._stopped = threading.Event()
        self._spec_changed = threading.Event()
        self._spec_request = Request()
        self._failed = False
        self._threads = [
            threading.Thread(target=target, name=f"watch {name}", daemon=True)
            for name, target in (
                ("files", self._follow_files),
                ("spec", self._follow_spec),
                ("containers", self._follow_containers),
            )
        ]

    def prepare(self, spec: Spec) -> Course:
        """Find the rules and note how the files are now. Raises WatchError."""
        found = course(spec, self._wishes, self._daemon.working_directory)
        self._adopt(found)
        return found

    def start(self) -> None:
        assert self._course is not None
        self._tell_course(self._course)
        for service in self._services.values():
            service.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Leave everything that is under way; returns once it has ended."""
        self._stopped.set()
        self._daemon.ended.set()
        self._spec_changed.set()
        self._spec_request.cancel()
        self._watching.stop()
        with self._lock:
            if self._news is not None:
                self._news.abort()
        for service in self._services.values():
            service.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self.close()
        self._report.tell("ended")

    def close(self) -> None:
        """Let go of the files of a loop that was not started."""
        self._watching.close()

    def wait(self) -> int:
        """Until `stop` is called, or the loop cannot go on, which it has told then: status 1."""
        self._threads[0].join()
        return 1 if self._failed else 0

    # --- files ----------------------------------------------------------------------------------

    def _follow_files(self) -> None:
        try:
            while (batch := self._watching.next()) is not None:
                with self._lock:
                    following, self._next_course = self._next_course, None
                if following is not None:
                    self._adopt(following)
                    self._tell_course(following)
                self._hand_out(batch)
        except Exception as exc:
            # Without this thread there is no loop.
            self._failed = True
            message, hint, _ = self._describe(exc)
            self._report.tell(
                "failed", action="watch", message=message, hint=hint, seconds=None, running=""
            )

    def _hand_out(self, batch: Batch) -> None:
        assert self._course is not None
        if any(change.path in self._course.files for change in batch.changes):
            self._spec_changed.set()
        works = divide(batch.changes, self._course.rules.rules, batch.since)
        for name, work in works.items():
            self._services[name].offer(work)

    def _adopt(self, found: Course) -> None:
        """Go by another course from now on."""
        self._course = found
        self._watching.plant({*found.rules.paths, *found.files}, found.rules.wanted)
        running = self._threads[0].is_alive()
        for name in set(self._services) - set(found.rules.services):
            self._services.pop(name).stop()
        for name in found.rules.services:
            if name in self._services:
                self._services[name].follow(found.order(name))
                continue
            self._services[name] = ServiceLoop(
                name,
                found.order(name),
                daemon=self._daemon,
                replicas=Replicas(name, self._daemon, self._root, self._run_directory),
                report=self._report,
                describe=self._describe,
                prune=self._prune,
            )
            if running:
                self._services[name].start()

    def _tell_course(self, found: Course) -> None:
        for remark in found.rules.remarks:
            self._warn(remark)
        self._report.tell(
            "watching", services=found.rules.services, paths=sorted(found.rules.paths)
        )

    # --- the spec -------------------------------------------------------------------------------

    def _follow_spec(self) -> None:
        while True:
            self._spec_changed.wait()
            self._spec_changed.clear()
            if self._stopped.is_set():
                return
            try:
                self._read_spec()
            except Superseded:
                return
            except Exception as exc:
                # Whatever a person writes into a spec: it is shown, and the last good one stays.
                message, hint, _ = self._describe(exc)
                self._report.tell(
                    "spec",
                    ok=False,
                    message=f"{message}\nwhat was read before stays in force",
                    hint=hint,
                )

    def _read_spec(self) -> None:
        assert self._course is not None
        before = self._course.spec
        spec = self._load()
        found = course(spec, self._wishes, self._daemon.working_directory)
        body = spec.body
        if body["project"] != before.project.canonical():
            if spec.project.name != before.project.name:
                raise _OtherProject(before.project.name, spec.project.name)
            options = {"services": list(self._wishes.services), "environ": spec.environ}
            self._daemon.run("up", {**body, "options": options}, self._spec_request)
            self._report.tell("spec", ok=True, message="the changed spec is applied")
        with self._lock:
            self._next_course = found
        self._watching.wake()

    # --- containers -----------------------------------------------------------------------------

    def _follow_containers(self) -> None:
        """Have the services look whenever containers came or went, or may have, unheard."""
        while not self._stopped.is_set():
            news = self._daemon.events()
            with self._lock:
                self._news = news
            if news is None:
                self._stopped.wait(_RETRY)
                continue
            for service in list(self._services.values()):
                service.look()
            self._listen(news)

    def _listen(self, news: Response) -> None:
        try:
            if self._stopped.is_set():
                return
            for event in news.events():
                service = self._services.get(str(event.get("service") or ""))
                if service and event["type"] == "container" and event["action"] in _NEWS:
                    service.look()
        except ClientError:
            return  # the daemon has gone: it is asked again
        finally:
            news.close()

    def _warn(self, message: str) -> None:
        self._report.tell("warning", message=message)


class _OtherProject(Exception):
    def __init__(self, former: str, now: str) -> None:
        super().__init__(f"the project was called {former} and is {now} now")
        self.hint = "end this and start it again"
