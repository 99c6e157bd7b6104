"""Puts together what follows git sources: repositories, stacks, deliveries, notifications.

What reads and decrypts repositories is imported when there is a source, and not before.
"""

from __future__ import annotations

import logging
import os
import random
from time import time
from typing import TYPE_CHECKING, cast

from orchestrator.supervisor.attempts import Repository, Told
from orchestrator.supervisor.sources import SourceKeeper
from orchestrator.supervisor.stacks import Stacks
from orchestrator.supervisor.webhooks import Webhooks

if TYPE_CHECKING:
    from orchestrator.engine.host import Host
    from orchestrator.gitops.source import EventKind, GitSource
    from orchestrator.supervisor.instance import Instance

_log = logging.getLogger(__name__)

_ANNOUNCED = frozenset(
    {"applied", "failed", "rolled-back", "drift", "suspended", "resumed", "planned"}
)


def keep_sources(instance: Instance) -> SourceKeeper:
    """The keeper of the instance's sources; its `run` does the work."""
    host = instance.host

    def open_repository(source: GitSource) -> Repository:
        from orchestrator.gitops.repository import GitRepository

        return GitRepository(source, host.root, host.run, os.environ)

    async def announce(source: GitSource, told: Told) -> None:
        await _announce(host, source, told)

    return SourceKeeper(host, Stacks(instance), open_repository, announce, random.Random())


def take_deliveries(sources: SourceKeeper) -> Webhooks:
    """Takes deliveries for these sources once it is told where to listen."""
    return Webhooks(sources.find, sources.poke)


async def _announce(host: Host, source: GitSource, told: Told) -> None:
    if told.action not in _ANNOUNCED or not source.notify:
        return
    from orchestrator.gitops import notify

    spec = source.canonical()["spec"]
    notification = notify.Notification(
        event=cast("EventKind", told.action),
        source=source.name,
        at=time(),
        commit=told.commit,
        ref=next((str(value) for value in (spec.get("ref") or {}).values()), ""),
        subject=told.subject,
        author=told.author,
        reason=told.reason,
        message=told.message or told.plan,
        projects=tuple(b.project for b in host.store.gitops.inventory(source.name)),
    )
    for failure in await notify.announce(source, notification):
        _log.error("source %s: %s", source.name, failure)
