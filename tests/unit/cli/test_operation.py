"""Long operations: what is sent, what is shown, and how they end."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import operation
from orchestrator.cli.errors import UsageError
from orchestrator.cli.operation import Stack, scales
from orchestrator.cli.options import GLOBAL_OPTIONS, Value
from orchestrator.cli.session import Session
from orchestrator.client.errors import ApiError, ProtocolError

_COMPOSE = "name: shop\nservices: {web: {image: debian}}\n"
_DONE = {"type": "result", "ok": True, "error": None, "exit_code": 0}


class _Response:
    """An answer of the daemon that is known beforehand."""

    def __init__(self, *events: dict[str, Any], status: int = 200) -> None:
        self.status = status
        self._events = events

    def json(self) -> Any:
        raise ApiError.from_body(self._events[0], self.status)

    def events(self) -> Any:
        return iter(self._events)

    def close(self) -> None:
        pass


class _Client:
    """Notes requests, and gives the answers that a test has prepared."""

    def __init__(self, *answers: _Response, loads: list[dict[str, Any]] | None = None) -> None:
        self._answers = list(answers)
        self._loads = loads or []
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def get(self, path: str, **_: Any) -> Any:
        assert path == "/v1/loads"
        return self._loads

    def stream(self, _: str, path: str, body: dict[str, Any]) -> _Response:
        self.sent.append((path, body))
        return self._answers.pop(0)


def _session(tmp_path: Path, client: _Client, **options: Value) -> Session:
    given = {option.name: option.default for option in GLOBAL_OPTIONS}
    session = Session({**given, **options}, environ={}, cwd=str(tmp_path))
    session._client = client  # type: ignore[assignment]  # what a session uses of a client
    return session


def _load(tmp_path: Path, session: Session) -> dict[str, Any]:
    """What the daemon remembers of a load of the file as it is now."""
    path = tmp_path / "compose.yaml"
    inputs = {
        "directory": str(tmp_path),
        "options": session.load_options(),
        "services": [],
        "files": {str(path): hashlib.sha256(path.read_bytes()).hexdigest()},
        "variables": {},
    }
    return {"project": "shop", "config_files": [str(path)], "inputs": inputs}


def test_a_new_stack_is_read_and_sent_whole(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(_COMPOSE)
    client = _Client(_Response(_DONE))

    Stack(_session(tmp_path, client)).send("up", {"wait": True})

    ((path, body),) = client.sent
    assert path == "/v1/projects/shop/up"
    assert body["options"] == {"wait": True}
    assert body["project"]["services"].keys() == {"web"}
    assert body["inputs"]["files"][str(tmp_path / "compose.yaml")]


def test_an_unchanged_stack_is_left_to_the_daemons_memory(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(_COMPOSE)
    client = _Client(_Response(_DONE))
    session = _session(tmp_path, client)
    client._loads = [_load(tmp_path, session)]

    Stack(session).send("up", {})

    ((path, body),) = client.sent
    assert path == "/v1/projects/shop/up"
    assert body["project"] is None
    assert body["inputs"] == client._loads[0]["inputs"]


def test_a_daemon_that_has_forgotten_gets_the_whole_stack_after_all(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(_COMPOSE)
    forgotten = _Response({"type": "NoSuchProject", "message": "no such project"}, status=404)
    client = _Client(forgotten, _Response(_DONE))
    session = _session(tmp_path, client)
    client._loads = [_load(tmp_path, session)]

    Stack(session).send("up", {})

    assert [body["project"] is None for _, body in client.sent] == [True, False]


def test_the_name_may_be_given_without_any_file(tmp_path: Path) -> None:
    given = _session(tmp_path, _Client(), project_name="other")

    assert given.project_path("containers") == "/v1/projects/other/containers"


def test_events_are_told_as_plain_lines_each_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = {"type": "step", "id": 1, "resource": "Container shop-web-1"}
    response = _Response(
        {**step, "status": "running", "text": "Creating"},
        {**step, "status": "running", "text": "Creating"},
        {"type": "build", "service": "web", "line": "hello\n", "step": ""},
        {**step, "status": "failed", "text": "Error", "detail": "no room"},
        {**step, "id": 2, "resource": "Network n", "status": "done", "text": "Created"},
        _DONE,
    )

    result = operation.follow(_session(tmp_path, _Client()), response, title="up")  # type: ignore[arg-type]  # what is used of it

    assert result == _DONE
    assert capsys.readouterr().err.splitlines() == [
        " Container shop-web-1  Creating",
        "web | hello",
        " Container shop-web-1  Error: no room",
        " Network n  Created",
    ]


def test_events_are_passed_on_as_json_where_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {"type": "plan", "empty": True}
    session = _session(tmp_path, _Client(), progress="json")

    operation.follow(session, _Response(plan, _DONE), title="up")  # type: ignore[arg-type]  # what is used of it

    assert [json.loads(line) for line in capsys.readouterr().err.splitlines()] == [plan]


def test_a_failure_has_the_words_and_the_status_of_the_result(tmp_path: Path) -> None:
    error = {"type": "ContainerStartError", "message": "no such command", "hint": "install it"}
    response = _Response({"type": "result", "ok": False, "error": error, "exit_code": 127})

    with pytest.raises(ApiError, match="no such command") as caught:
        operation.follow(_session(tmp_path, _Client()), response, title="up")  # type: ignore[arg-type]  # what is used of it
    assert (caught.value.exit_code, caught.value.hint) == (127, "install it")


def test_an_answer_without_a_result_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError):
        operation.follow(_session(tmp_path, _Client()), _Response(), title="up")  # type: ignore[arg-type]  # what is used of it


def test_scales() -> None:
    assert scales(("web=3", "worker=0")) == {"web": 3, "worker": 0}
    for wrong in ("web", "web=", "=3", "web=-1", "web=x"):
        with pytest.raises(UsageError):
            scales((wrong,))
