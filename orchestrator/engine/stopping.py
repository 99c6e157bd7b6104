"""Asking a container to end: by its stop signal, once it can hear it, within its grace.

The kernel drops a signal that the first process of a pid namespace has no handler for. One that
has only just started has none yet, so that a stop at that moment would take the whole grace; it
gets the signal again as soon as it listens.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from time import monotonic

from orchestrator.engine.exits import ended, send_signal
from orchestrator.engine.host import Host
from orchestrator.engine.records import ContainerRecord
from runtime.errors import InvalidState

_LOOK = 0.02  # seconds until the first look at whether it listens by now
_LONGEST = 0.5
_SLOWER = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whether it has ended, after how long a grace (seconds) it has not, and whether it was deaf:
    without a handler all that time."""

    ended: bool
    grace: float
    deaf: bool = False


async def ask_to_end(
    host: Host, record: ContainerRecord, grace: float, deaf_timeout: float | None
) -> Asked:
    """Send the stop signal and wait; a grace below 0 is Docker's way to wait for ever.

    `deaf_timeout` is how long one is waited for that does not listen, None for its grace.
    """
    number = record.process.stop_signal
    deaf = await asyncio.to_thread(_ignores, host, record.id, number)
    await send_signal(host, record, number)
    began, pause = monotonic(), _LOOK
    if deaf_timeout is None or 0 <= grace < deaf_timeout:
        deaf_timeout = grace
    while deaf:
        left = pause if deaf_timeout < 0 else deaf_timeout - (monotonic() - began)
        if await ended(host, record.id, max(0.0, min(pause, left))):
            return Asked(ended=True, grace=deaf_timeout)
        if left <= pause and deaf_timeout >= 0:
            return Asked(ended=False, grace=deaf_timeout, deaf=True)
        deaf = await asyncio.to_thread(_ignores, host, record.id, number)
        if not deaf:
            await send_signal(host, record, number)
        pause = min(pause * _SLOWER, _LONGEST)
    rest = None if grace < 0 else max(0.0, grace - (monotonic() - began))
    return Asked(ended=await ended(host, record.id, rest), grace=grace)


def tell_killed(host: Host, record: ContainerRecord, asked: Asked) -> None:
    """Say why a stop took its whole grace: most who wonder have a first process that lacks a
    handler."""
    number = record.process.stop_signal
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if asked.deaf:
        what = f"its first process does not handle {name}"
        hint = f"set init: true, let it trap {name}, or name another stop_signal"
    else:
        what = f"it did not end by {name} in time"
        hint = "stop_grace_period gives it longer"
    message = f"container {record.name} was killed after {asked.grace:g} s: {what}"
    host.warn(record.project, message, hint)


def _ignores(host: Host, id: str, number: int) -> bool:
    try:
        return host.containers.would_ignore(id, number)
    except InvalidState:
        return False
