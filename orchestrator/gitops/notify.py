"""Tells others what became of a source: JSON to an address, Slack's form, or a command.

Nothing that is sent comes from a secret: it is the source's name, the revision and the one line
that the status shows. Addresses that are read from files are in no error either.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import hmac
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.gitops import addresses
from orchestrator.gitops.errors import GitOpsError, NotificationFailed
from orchestrator.gitops.secret_files import read_secret
from orchestrator.gitops.source import SECOND, EventKind, GitSource, Notify

VERSION = 1
ATTEMPTS = 3
_BACKOFF = 1.0
_MESSAGE = 2000
_SIGNS: Mapping[str, str] = {
    "applied": "✅",
    "failed": "❌",
    "rolled-back": "↩️",
    "drift": "🔧",
    "suspended": "⏸️",
    "resumed": "▶️",
    "planned": "📋",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What happened: `at` in seconds since the epoch; `reason` is the word for a failure,
    `message` its line, or the plan's text in dry mode."""

    event: EventKind
    source: str
    at: float
    commit: str = ""
    ref: str = ""
    subject: str = ""
    author: str = ""
    reason: str = ""
    message: str = ""
    projects: tuple[str, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        when = datetime.datetime.fromtimestamp(self.at, datetime.UTC)
        body = {**asdict(self), "projects": list(self.projects), "message": self._message()}
        return {"version": VERSION, **body, "at": when.isoformat(timespec="milliseconds")}

    def text(self) -> str:
        """A line, and the message below it."""
        what = f"{self.source}: {self.event}"
        if self.commit:
            what += f" {self.commit[:12]}"
        if self.subject:
            what += f" “{self.subject}”"
        if self.reason:
            what += f" ({self.reason})"
        return f"{what}\n{self._message()}" if self.message else what

    def variables(self) -> dict[str, str]:
        """The environment of a command."""
        return {
            "BAY_EVENT": self.event,
            "BAY_SOURCE": self.source,
            "BAY_COMMIT": self.commit,
            "BAY_REF": self.ref,
            "BAY_SUBJECT": self.subject,
            "BAY_AUTHOR": self.author,
            "BAY_REASON": self.reason,
            "BAY_MESSAGE": self._message().replace("\0", ""),
            "BAY_PROJECTS": " ".join(self.projects),
        }

    def _message(self) -> str:
        return self.message if len(self.message) <= _MESSAGE else self.message[:_MESSAGE] + "…"


async def announce(source: GitSource, notification: Notification) -> list[NotificationFailed]:
    """Tell everybody of the source who wants to hear of this; gives what could not be told."""
    wanted = [entry for entry in source.notify if notification.event in entry.events]
    outcomes = await asyncio.gather(
        *(send(entry, notification) for entry in wanted), return_exceptions=True
    )
    failures = []
    for outcome in outcomes:
        if isinstance(outcome, NotificationFailed):
            failures.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    return failures


async def send(entry: Notify, notification: Notification, *, backoff: float = _BACKOFF) -> None:
    """Tell one of them, in several attempts. Raises NotificationFailed."""
    failure: NotificationFailed | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(backoff * 2 ** (attempt - 1))
        try:
            if entry.type == "command":
                await _run(entry, notification)
            else:
                await _post(entry, notification)
            return
        except _Final as exc:
            raise NotificationFailed(str(exc)) from exc
        except NotificationFailed as exc:
            failure = exc
    assert failure is not None, "an attempt either returns or fails"
    raise failure


class _Final(Exception):
    """Trying again would give the same."""


async def _post(entry: Notify, notification: Notification) -> None:
    import aiohttp

    url, body, headers = _request(entry, notification)
    try:
        timeout = aiohttp.ClientTimeout(total=entry.timeout / SECOND)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            status = answer.status
    except TimeoutError as exc:
        limit = entry.timeout / SECOND
        raise NotificationFailed(f"{entry.type} did not answer within {limit:g} s") from exc
    except (aiohttp.ClientError, ValueError, OSError):
        # The library's message names the address, which may be a secret.
        raise NotificationFailed(f"{entry.type} cannot be reached") from None
    if 200 <= status < 300:
        return
    message = f"{entry.type} answered with status {status}"
    if status in (408, 425, 429) or status >= 500:
        raise NotificationFailed(message)
    raise _Final(message)


def _request(entry: Notify, notification: Notification) -> tuple[str, bytes, dict[str, str]]:
    try:
        url = entry.url or read_secret(entry.url_file, f"the address of {entry.type}").decode()
        secret = (
            read_secret(entry.secret_file, f"the secret of {entry.type}")
            if entry.secret_file
            else None
        )
    except (GitOpsError, UnicodeDecodeError) as exc:
        raise _Final(str(exc)) from exc
    try:
        addresses.check_http(url)
    except ValueError as exc:
        if not entry.url_file:
            raise _Final(str(exc)) from exc
        raise _Final(f"{entry.url_file} does not hold an https address") from None
    document = notification.document() if entry.type == "webhook" else _slack(notification)
    body = json.dumps(document, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "bayplan"}
    if secret is not None:
        signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
        headers["X-Bayplan-Signature-256"] = f"sha256={signature}"
    return url, body, headers


def _slack(notification: Notification) -> dict[str, str]:
    text = f"{_SIGNS[notification.event]} {notification.text()}"
    for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(plain, escaped)
    return {"text": text}


async def _run(entry: Notify, notification: Notification) -> None:
    name = os.path.basename(entry.command[0])
    environ = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    try:
        process = await asyncio.create_subprocess_exec(
            *entry.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env={**environ, **notification.variables()},
            start_new_session=True,
        )
    except OSError as exc:
        reason = (exc.strerror or "unknown").lower()
        raise _Final(f"command {name} cannot be started: {reason}") from exc
    document = json.dumps(notification.document(), ensure_ascii=False).encode()
    try:
        async with asyncio.timeout(entry.timeout / SECOND):
            await process.communicate(document)
    except TimeoutError as exc:
        limit = entry.timeout / SECOND
        raise _Final(f"command {name} did not end within {limit:g} s") from exc
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode:
        raise NotificationFailed(f"command {name} ended with {process.returncode}")
