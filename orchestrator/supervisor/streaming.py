"""Answers that last: a run's events as JSON lines, and what happens when nobody reads them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.engine.executor import PARALLEL
from orchestrator.serving.messages import Request, Stream
from orchestrator.supervisor.diary import Diary
from orchestrator.supervisor.errors import BadRequest, error_body, expected
from orchestrator.supervisor.operations import Run
from orchestrator.supervisor.requests import flag, instance_of

_log = logging.getLogger(__name__)

_HEADERS = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}

Operation = Callable[[Run], Awaitable[dict[str, Any]]]
Write = Callable[[dict[str, Any]], Awaitable[None]]


async def stream_run(request: Request, operation: Operation, *, plans: bool = False) -> Stream:
    """Run `operation` and answer with its events, the result last; with `parallel` in the query
    that many actions at once, with `dry_run` only its plan, where all that it does `plans` show.

    A client that goes away cancels the run: what is under way ends, the rest is not begun.
    """
    dry = flag(request, "dry_run")
    if dry and not plans:
        raise BadRequest("this operation has no dry run")
    parallel = _parallel(request)
    response = await request.begin(_HEADERS)
    events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    diary = Diary.of(request)

    def emit(event: dict[str, Any]) -> None:
        diary.see(event)
        events.put_nowait(event)

    run = Run(emit=emit, cancel=asyncio.Event(), dry=dry, parallel=parallel)
    instance = instance_of(request)
    runs = instance.runs
    task = asyncio.create_task(_finish(operation, run, events, diary))
    runs[task] = run.cancel
    task.add_done_callback(runs.pop)
    tidying = instance.tidying
    task.add_done_callback(lambda _: tidying.now() if diary.steps else tidying.soon())
    try:
        while (event := await events.get()) is not None:
            await response.write(_line(event))
        await response.end()
    except (ConnectionError, asyncio.CancelledError) as exc:
        run.cancel.set()
        # The run decides when it has ended: half an action would leave the unknown.
        await asyncio.wait((task,))
        if isinstance(exc, asyncio.CancelledError):
            raise
    return response


def _parallel(request: Request) -> int:
    text = request.query.get("parallel", str(PARALLEL))
    if not text.isdecimal() or not int(text):
        raise BadRequest(f"parallel={text}: it must be a number from 1 on")
    return int(text)


async def _finish(
    operation: Operation,
    run: Run,
    events: asyncio.Queue[dict[str, Any] | None],
    diary: Diary,
) -> None:
    try:
        last = await operation(run)
    except Exception as exc:
        if not expected(exc):
            _log.exception("a run failed")
        body = error_body(exc)
        last = {"type": "result", "ok": False, "error": body, "exit_code": body["exit_code"]}
    try:
        await diary.finish(last)
    finally:
        events.put_nowait(last)
        events.put_nowait(None)


async def stream_lines(
    request: Request,
    lines: Callable[[Callable[[dict[str, Any]], Awaitable[None]]], Awaitable[None]],
) -> Stream:
    """Answer with JSON lines until `lines` returns or the client goes away."""
    response = await request.begin(_HEADERS)

    async def write(event: dict[str, Any]) -> None:
        await response.write(_line(event))

    with contextlib.suppress(ConnectionError):
        await lines(write)
        await response.end()
    return response


def _line(event: dict[str, Any]) -> bytes:
    # Names of files need not be text: what is not is shown as "?", and ends no stream.
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace") + b"\n"
