"""How a source is, as JSON: what was tried last apart from what stands. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.engine.gitops_table import Applied, Attempt, Belonging, Passage, SourceRecord
from orchestrator.gitops.reconcile import Sight, is_due, is_ready
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


def source_status(
    record: SourceRecord, sight: Sight, doing: str, inventory: Iterable[Belonging]
) -> dict[str, Any]:
    spec = record.document["spec"]
    return {
        "name": record.name,
        "url": spec["url"].partition("?")[0],
        "ref": reference(spec),
        "state": state(record, sight, doing),
        "message": message(record, sight),
        "ready": is_standing(record, sight),
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
