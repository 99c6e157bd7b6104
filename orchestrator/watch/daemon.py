"""The daemon as the dev loop needs it: asked again when it was away, and left when it is too late.

Every request can be made twice, because it says what is to be, not what is to change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from orchestrator.client.errors import ApiError, ClientError, DaemonUnreachable, ProtocolError
from orchestrator.client.http import Client, Response, quote
from orchestrator.watch.report import Report

_RETRY = 0.25  # seconds between attempts to find the daemon again
_PATIENCE = 20  # attempts before one is started

T = TypeVar("T")
OnEvent = Callable[[dict[str, Any]], None]


class Superseded(Exception):
    """What was being done is not wanted any more."""


class Request:
    """One request that another thread may call off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._response: Response | None = None
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        with self._lock:
            self.cancelled.set()
            if self._response is not None:
                self._response.abort()

    def hold(self, response: Response | None) -> None:
        """Note the answer that is being read; raises Superseded where it came too late."""
        with self._lock:
            self._response = response
            if response is not None and self.cancelled.is_set():
                response.close()
                raise Superseded


class Daemon:
    """Requests about one project. `answering` gives a client of a daemon that is there, else None;
    `ensure` starts one. May be used by several threads."""

    def __init__(
        self,
        project: str,
        report: Report,
        *,
        answering: Callable[[], Client | None],
        ensure: Callable[[], Client],
    ) -> None:
        self.project = project
        self._report = report
        self._answering = answering
        self._ensure = ensure
        self._lock = threading.Lock()
        self._away = False
        self.ended = threading.Event()

    def containers(self, service: str) -> list[dict[str, Any]]:
        """The service's containers, whatever their state, but for one-off ones."""
        return self._persist(lambda client: self._listed(client, service), Request())

    def glance(self, service: str) -> list[dict[str, Any]] | None:
        """The same where the daemon answers at once, else None."""
        try:
            client = self._answering()
            return None if client is None else self._listed(client, service)
        except ClientError:
            return None

    def working_directory(self, image: str) -> str:
        """Where an image's programs start; "/" where it says nothing or is not there."""
        try:
            found = self._persist(
                lambda client: client.get(f"/v1/images/{quote(image)}"), Request()
            )
        except ApiError:
            return "/"
        config = found.get("config", {}).get("config") or {}
        return str(config.get("WorkingDir") or "/")

    def run(
        self, verb: str, body: dict[str, Any], request: Request, on_event: OnEvent | None = None
    ) -> None:
        """A long operation to its end. Raises ApiError where it fails, Superseded."""
        path = self._path(verb)

        def once(client: Client) -> dict[str, Any]:
            response = client.stream("POST", path, body)
            try:
                request.hold(response)
                last: dict[str, Any] | None = None
                for event in response.events():
                    if event["type"] == "result":
                        last = event
                    elif on_event is not None:
                        on_event(event)
            finally:
                request.hold(None)
                response.close()
            if last is None:
                raise DaemonUnreachable("the daemon's answer ends without a result")
            return last

        result = self._persist(once, request)
        if not result["ok"]:
            raise ApiError.from_body(
                {"exit_code": result.get("exit_code"), **(result.get("error") or {})}
            )

    def remove_image(self, image: str) -> bool:
        """Remove an image that has no name any more; False where it is still in use, or named."""
        reference = quote(image)
        try:
            found = self._persist(lambda client: client.get(f"/v1/images/{reference}"), Request())
            if found["references"]:
                return False
            self._persist(lambda client: client.delete(f"/v1/images/{reference}"), Request())
        except ApiError:
            return False
        return True

    def events(self) -> Response | None:
        """What happens to the project from now on; None while no daemon answers."""
        client = self._answering()
        if client is None:
            return None
        try:
            return client.stream("GET", "/v1/events", project=self.project, follow="1")
        except ClientError:
            return None

    def _listed(self, client: Client, service: str) -> list[dict[str, Any]]:
        found = client.get(self._path("containers"), all=1)
        return [c for c in found if c["service"] == service and not c.get("oneoff")]

    def _path(self, suffix: str) -> str:
        return f"/v1/projects/{quote(self.project)}/{suffix}"

    def _persist(self, ask: Callable[[Client], T], request: Request) -> T:
        """Ask until there is an answer: a daemon that was killed comes back."""
        attempts = 0
        while not (request.cancelled.is_set() or self.ended.is_set()):
            try:
                client = self._answering() if attempts < _PATIENCE else self._ensure()
                if client is not None:
                    answer = ask(client)
                    self._came_back()
                    return answer
            except (DaemonUnreachable, ProtocolError) as exc:
                if request.cancelled.is_set() or self.ended.is_set():
                    raise Superseded from exc
                if isinstance(exc, ProtocolError) and attempts > _PATIENCE:
                    raise
            attempts += 1
            self._went_away()
            request.cancelled.wait(_RETRY)
        raise Superseded

    def _went_away(self) -> None:
        with self._lock:
            if self._away:
                return
            self._away = True
        self._report.tell("waiting", message="the daemon does not answer; waiting for it")

    def _came_back(self) -> None:
        with self._lock:
            if not self._away:
                return
            self._away = False
        self._report.tell("waiting", message="the daemon answers again")
