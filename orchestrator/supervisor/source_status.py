"""How a source is, as JSON: what was tried last apart from what stands, and whether that is as
the repository says (sync) apart from how it fares now (health). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.engine.gitops_table import Applied, Attempt, Belonging, Passage, SourceRecord
from orchestrator.gitops.reconcile import Sight, is_due, is_ready
from orchestrator.supervisor.source_health import Healths
from orchestrator.supervisor.status import Health, health_of_all
from orchestrator.supervisor.views import time_text


def state(record: SourceRecord, sight: Sight, doing: str) -> str:
    """One word for a source: what a person has to know of it first."""
    last = record.attempted
    if record.suspended:
        return "Suspended"
    if doing in ("apply", "return"):
        return "Applying"
    if last is not None and last.outcome == "reverting":
        return "Reverting"
    if sight.trouble:
        return "Degraded"
    if last is not None and last.outcome == "rolled-back":
        return "RolledBack"
    if last is not None and last.outcome == "failed":
        return "Failed"
    if sight.message:
        return sight.reason
    if sight.setback:
        return "Retrying"
    if sight.unready and sight.head and is_due(record, sight.head):
        return "Waiting"
    if last is not None and last.outcome == "planned":
        return "Planned"
    if record.pinned is not None:
        return "Pinned"
    return "Applied" if record.applied is not None else "New"


def message(record: SourceRecord, sight: Sight) -> str:
    """What there is to say of the state, in one line."""
    last = record.attempted
    if sight.trouble:
        return sight.trouble
    if last is not None and last.outcome in ("failed", "reverting"):
        return last.message
    if last is not None and last.outcome == "rolled-back":
        stands = f"{record.applied.commit[:12]} stands again" if record.applied else ""
        return f"{last.message}; {stands}"
    if sight.message or sight.setback:
        return sight.message or sight.setback
    if sight.unready and sight.head and is_due(record, sight.head):
        return f"waits until {' and '.join(sight.unready)} is ready"
    if record.pinned is not None:
        return "rolled back, and stays there until it is resumed"
    return ""


def is_standing(record: SourceRecord, sight: Sight) -> bool:
    """Whether what was tried last is what stands, and is healthy."""
    return is_ready(record) and record.settled and not sight.trouble


def sync(record: SourceRecord, sight: Sight) -> str:
    """Synced, OutOfSync or Unknown: whether what stands is what the repository says."""
    if sight.message or sight.head is None:
        return "Unknown"
    applied = record.applied
    standing = applied is not None and applied.commit == sight.head and is_standing(record, sight)
    return "Synced" if standing else "OutOfSync"


def ailing(healths: Healths) -> str:
    """Which services do not do well now, in one line; "" where all do."""
    return "; ".join(
        f"project {project}: {', '.join(f'{name} is {health.word}' for name, health in ill)}"
        for project, services in healths.items()
        if (ill := [(n, h) for n, h in sorted(services.items()) if h > Health.PROGRESSING])
    )


def health(record: SourceRecord, healths: Healths) -> Health:
    """The worst of what a source has put here; a revision without services does well."""
    parts = [health for services in healths.values() for health in services.values()]
    return Health.HEALTHY if record.applied is not None and not parts else health_of_all(parts)


def source_status(
    record: SourceRecord,
    sight: Sight,
    doing: str,
    inventory: Iterable[Belonging],
    healths: Healths,
) -> dict[str, Any]:
    """`healths` are those of the services of the projects in `inventory`, as they are now."""
    spec = record.document["spec"]
    inventory = tuple(inventory)
    whole = health(record, healths)
    return {
        "name": record.name,
        "url": spec["url"].partition("?")[0],
        "ref": reference(spec),
        "state": state(record, sight, doing),
        "message": message(record, sight) or ailing(healths),
        "sync": sync(record, sight),
        "health": whole.word,
        "ready": is_standing(record, sight) and whole <= Health.SUSPENDED,
        "suspended": record.suspended,
        "dry_run": bool(spec.get("dryRun")),
        "pinned": record.pinned,
        "doing": doing,
        "head": sight.head,
        "probed_at": time_text(sight.probed_at) if sight.probed_at is not None else None,
        "repository": {"reason": sight.reason, "message": sight.message},
        "waits_for": list(sight.unready),
        "depends_on": list(spec.get("dependsOn") or ()),
        "last_attempted": _attempt(record.attempted),
        "last_applied": _applied(record.applied),
        "settled": record.settled,
        "trouble": sight.trouble,
        "projects": [
            {
                "project": belonging.project,
                "commit": belonging.commit,
                "services": sorted(belonging.services),
                "health": {
                    name: health.word for name, health in healths[belonging.project].items()
                },
                "error": belonging.error,
            }
            for belonging in inventory
        ],
    }


def reference(spec: dict[str, Any]) -> str:
    """What a definition follows, as it is named: a branch, tag, commit or range."""
    return next((str(value) for value in (spec.get("ref") or {}).values() if value), "HEAD")


def _attempt(attempt: Attempt | None) -> dict[str, Any] | None:
    if attempt is None:
        return None
    return {
        "commit": attempt.commit,
        "at": time_text(attempt.at),
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "message": attempt.message,
    }


def _applied(applied: Applied | None) -> dict[str, Any] | None:
    if applied is None:
        return None
    return {
        "commit": applied.commit,
        "at": time_text(applied.at),
        "revision": applied.number,
    }


def passage_body(passage: Passage, applied: Applied | None) -> dict[str, Any]:
    """An entry of the history; `kept` tells whether there is a way back to it."""
    return {
        "revision": passage.number,
        "commit": passage.commit,
        "at": time_text(passage.at),
        "outcome": passage.outcome,
        "subject": passage.subject,
        "author": passage.author,
        "reason": passage.reason,
        "message": passage.message,
        "seconds": round(passage.seconds, 3),
        "projects": sorted(passage.projects) if passage.projects is not None else None,
        "kept": passage.projects is not None,
        "current": applied is not None and applied.number == passage.number,
    }
