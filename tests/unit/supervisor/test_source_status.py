"""What a person is shown of a source: sync, health and state apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from orchestrator.engine.gitops_table import Applied, Attempt, Belonging, Outcome, SourceRecord
from orchestrator.gitops.reconcile import Sight
from orchestrator.supervisor.source_status import source_status
from orchestrator.supervisor.status import Health

APPLIED = Applied(commit="a", source="d", at=1.0, number=1)
SEEN = Sight(head="a", probed_at=1.0)


def tried(commit: str, outcome: Outcome) -> Attempt:
    return Attempt(commit=commit, source="d", at=1.0, outcome=outcome)


GOOD = SourceRecord(
    name="shop",
    document={"spec": {"url": "https://example.org/shop.git", "ref": {"branch": "main"}}},
    digest="d",
    suspended=False,
    pinned=None,
    settled=True,
    attempted=tried("a", "applied"),
    applied=APPLIED,
    created_at=0.0,
)


def shown(record: SourceRecord = GOOD, sight: Sight = SEEN, **services: Health) -> dict[str, Any]:
    belonging = Belonging(
        project="shop",
        source="shop",
        commit="a",
        spec={"services": {name: {} for name in services}},
        services=frozenset(services),
    )
    return source_status(record, sight, "", [belonging], {"shop": services})


def test_what_stands_and_does_well_is_ready() -> None:
    found = shown(web=Health.HEALTHY, db=Health.HEALTHY)
    assert (found["state"], found["sync"], found["health"]) == ("Applied", "Synced", "Healthy")
    assert found["ready"] and found["message"] == ""


@pytest.mark.parametrize(
    ("health", "ready", "message"),
    [
        (Health.SUSPENDED, True, ""),
        (Health.PROGRESSING, False, ""),
        (Health.MISSING, False, "project shop: web is Missing"),
        (Health.DEGRADED, False, "project shop: web is Degraded"),
    ],
)
def test_what_stumbles_after_the_gate_is_told_and_not_ready(
    health: Health, ready: bool, message: str
) -> None:
    found = shown(web=health, db=Health.HEALTHY)
    assert (found["state"], found["sync"]) == ("Applied", "Synced")
    assert (found["health"], found["ready"], found["message"]) == (health.word, ready, message)
    assert found["projects"][0]["health"] == {"web": health.word, "db": "Healthy"}


@pytest.mark.parametrize(
    ("record", "sight", "sync"),
    [
        (GOOD, dataclasses.replace(SEEN, head="b"), "OutOfSync"),
        (GOOD, dataclasses.replace(SEEN, head=None), "Unknown"),
        (GOOD, dataclasses.replace(SEEN, message="no answer", reason="Unreachable"), "Unknown"),
        (dataclasses.replace(GOOD, settled=False), SEEN, "OutOfSync"),
        (
            dataclasses.replace(GOOD, attempted=tried("b", "rolled-back")),
            dataclasses.replace(SEEN, head="b"),
            "OutOfSync",
        ),
    ],
)
def test_sync_is_whether_what_stands_is_what_the_repository_says(
    record: SourceRecord, sight: Sight, sync: str
) -> None:
    assert shown(record, sight, web=Health.HEALTHY)["sync"] == sync


def test_nothing_that_was_meant_is_well_and_nothing_yet_is_missing() -> None:
    assert shown()["health"] == "Healthy" and shown()["ready"]
    new = dataclasses.replace(GOOD, attempted=None, applied=None)
    assert shown(new)["health"] == "Missing" and not shown(new)["ready"]
