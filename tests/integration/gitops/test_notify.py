"""Notifications, to a server of the test's own and to commands."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from orchestrator.gitops.errors import NotificationFailed
from orchestrator.gitops.notify import Notification, announce, send
from orchestrator.gitops.source import GitSource, Notify

FAILED = Notification(
    event="failed",
    source="shop",
    at=1_700_000_000.5,
    commit="1a2b3c" * 6 + "1a2b",
    ref="refs/heads/main",
    subject="Sell <more> & more",
    author="Ann <ann@example.org>",
    reason="RenderFailed",
    message="compose.yaml:3:4: services.web: unknown key",
    projects=("shop", "metrics"),
)


class Listener:
    """Answers with `statuses` in turn, the last one for ever; keeps what it got."""

    def __init__(self, statuses: Sequence[int]) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, headers={"Location": "/elsewhere"})


def tell(entry: dict[str, Any], tmp_path: Path, *statuses: int) -> Listener:
    """Send FAILED to a listener; a `urlFile` gets its address."""

    async def run() -> Listener:
        listener = Listener(statuses)
        application = web.Application()
        application.router.add_post("/{path:.*}", listener.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            url = f"http://127.0.0.1:{port}/services/T0/s3cret"
            if "urlFile" in entry:
                (tmp_path / "url").write_text(url + "\n")
            else:
                entry["url"] = url
            await send(Notify.model_validate(entry), FAILED, backoff=0.001)
        finally:
            await runner.cleanup()
        return listener

    return asyncio.run(run())


def test_a_webhook_gets_signed_json(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    listener = tell({"type": "webhook", "secretFile": str(tmp_path / "secret")}, tmp_path, 204)
    ((headers, body),) = listener.got
    assert json.loads(body) == {
        "version": 1,
        "event": "failed",
        "source": "shop",
        "at": "2023-11-14T22:13:20.500+00:00",
        "commit": FAILED.commit,
        "ref": "refs/heads/main",
        "subject": "Sell <more> & more",
        "author": "Ann <ann@example.org>",
        "reason": "RenderFailed",
        "message": FAILED.message,
        "projects": ["shop", "metrics"],
    }
    wanted = hmac.new(b"hunter2", body, hashlib.sha256).hexdigest()
    assert headers["X-Bayplan-Signature-256"] == f"sha256={wanted}"


def test_slack_gets_its_form(tmp_path: Path) -> None:
    listener = tell({"type": "slack", "urlFile": str(tmp_path / "url")}, tmp_path, 200)
    ((_, body),) = listener.got
    text = json.loads(body)["text"]
    assert "shop: failed 1a2b3c1a2b3c" in text
    assert "Sell &lt;more&gt; &amp; more" in text
    assert FAILED.message in text


def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    assert len(tell({"type": "webhook"}, tmp_path, 503, 429, 200).got) == 3


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (302, 1), (500, 3)])
def test_a_refusal_is_told_without_the_address(
    tmp_path: Path, status: int, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    answer = Listener.answer

    async def counted(self: Listener, request: web.Request) -> web.Response:
        calls.append(request.path)
        return await answer(self, request)

    monkeypatch.setattr(Listener, "answer", counted)
    with pytest.raises(NotificationFailed, match=f"slack answered with status {status}") as caught:
        tell({"type": "slack", "urlFile": str(tmp_path / "url")}, tmp_path, status)
    assert calls == ["/services/T0/s3cret"] * attempts
    assert "s3cret" not in str(caught.value)


def test_an_address_that_nobody_answers_at_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("http://127.0.0.1:1/s3cret")
    entry = Notify.model_validate({"type": "slack", "urlFile": str(tmp_path / "url")})
    with pytest.raises(NotificationFailed, match="slack cannot be reached") as caught:
        asyncio.run(send(entry, FAILED, backoff=0.001))
    assert caught.value.__cause__ is None
    (tmp_path / "url").write_text("ftp://s3cret.example.org/")
    with pytest.raises(NotificationFailed, match="does not hold an https address") as caught:
        asyncio.run(send(entry, FAILED, backoff=0.001))
    assert "s3cret" not in str(caught.value)


def command(tmp_path: Path, script: str, **changes: Any) -> Notify:
    place = tmp_path / "tell"
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)
    words = [str(place), "an argument"]
    return Notify.model_validate({"type": "command", "command": words, **changes})


def test_a_command_gets_variables_and_json_and_nothing_of_the_daemon_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAEMON_SECRET", "hunter2")
    out = tmp_path / "out"
    entry = command(tmp_path, f'cat >{out}.json; echo "$1" >{out}; env >{out}.env')
    asyncio.run(send(entry, FAILED))
    assert out.read_text() == "an argument\n"
    assert json.loads(Path(f"{out}.json").read_text())["reason"] == "RenderFailed"
    environ = Path(f"{out}.env").read_text()
    assert "BAY_EVENT=failed\n" in environ
    assert "BAY_PROJECTS=shop metrics\n" in environ
    assert "hunter2" not in environ


def test_a_command_that_fails_is_tried_again(tmp_path: Path) -> None:
    count = tmp_path / "count"
    entry = command(tmp_path, f"echo x >>{count}; exit 3")
    with pytest.raises(NotificationFailed, match="command tell ended with 3"):
        asyncio.run(send(entry, FAILED, backoff=0.001))
    assert count.read_text() == "x\n" * 3


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    entry = command(tmp_path, f"sleep 1000 & echo $! >{pid}; wait", timeout="1s")
    with pytest.raises(NotificationFailed, match="did not end within 1 s"):
        asyncio.run(send(entry, FAILED))
    deadline = time.monotonic() + 60
    while _runs(pid.read_text().strip()):
        assert time.monotonic() < deadline, "what the command had started goes on"
        time.sleep(0.01)


def _runs(pid: str) -> bool:
    try:
        state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_everybody_who_wants_to_hear_is_told_and_failures_stop_nobody(tmp_path: Path) -> None:
    def entry(name: str, script: str, events: list[str]) -> dict[str, Any]:
        place = tmp_path / name
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)
        return {"type": "command", "command": [str(place)], "events": events}

    source = GitSource.model_validate(
        {
            "name": "shop",
            "url": "/r",
            "notify": [
                {"type": "command", "command": ["/nowhere/missing"], "events": ["failed"]},
                entry("one", f"touch {tmp_path}/told", ["failed", "applied"]),
                entry("two", f"touch {tmp_path}/not-told", ["applied"]),
            ],
        }
    )
    (failure,) = asyncio.run(announce(source, FAILED))
    assert "command missing cannot be started: no such file" in str(failure)
    assert (tmp_path / "told").exists()
    assert not (tmp_path / "not-told").exists()


def test_a_long_message_is_cut() -> None:
    long = Notification(event="planned", source="shop", at=0, message="x" * 10_000)
    assert len(long.document()["message"]) == 2001
    assert len(long.text()) < 2100
