"""What is on record of git sources, and what the record refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engine.gitops_table import (
    KEPT_ATTEMPTS,
    KEPT_REVISIONS,
    Attempt,
    GitopsTable,
    Passage,
    ProjectClaimed,
)
from orchestrator.engine.store import Store

SHOP: dict[str, Any] = {"shop": {"name": "shop", "services": {"web": {}, "db": {}}}}


@pytest.fixture
def table(tmp_path: Path) -> Iterator[GitopsTable]:
    with Store(tmp_path) as store:
        for name in ("one", "two"):
            store.gitops.put(name, {"name": name}, f"digest {name}", suspended=False, now=1.0)
        yield store.gitops


def attempt(commit: str) -> Attempt:
    return Attempt(commit=commit, source="digest one", at=2.0, outcome="applying")


def passage(commit: str, outcome: Any, projects: Any = None) -> Passage:
    return Passage(source="one", commit=commit, at=3.0, outcome=outcome, projects=projects)


def test_a_new_definition_keeps_what_was_applied(table: GitopsTable) -> None:
    table.begin("one", attempt("a"), SHOP)
    table.succeed(passage("a", "applied", SHOP), "digest one")
    table.put("one", {"name": "one", "interval": 5}, "other", suspended=True, now=9.0)
    record = table.get("one")
    assert record is not None and record.applied is not None
    assert (record.digest, record.suspended, record.created_at) == ("other", True, 1.0)
    assert record.applied.commit == "a"


def test_a_project_belongs_to_one_source_and_the_second_changes_nothing(
    table: GitopsTable,
) -> None:
    table.begin("one", attempt("a"), SHOP)
    with pytest.raises(ProjectClaimed, match="project shop belongs to source one"):
        table.begin("two", attempt("b"), {"blog": {"services": {}}, **SHOP})
    record = table.get("two")
    assert record is not None and record.attempted is None
    assert [(b.project, b.source) for b in table.inventory()] == [("shop", "one")]


def test_the_services_of_a_failed_revision_stay_known_until_it_has_been_taken_back(
    table: GitopsTable,
) -> None:
    table.begin("one", attempt("a"), SHOP)
    table.succeed(passage("a", "applied", SHOP), "digest one")
    table.settle("one", "a", SHOP)
    table.begin("one", attempt("b"), {"shop": {"services": {"web": {}, "cache": {}}}})
    table.fail(passage("b", "reverting"), "digest one")
    (belonging,) = table.inventory("one")
    assert belonging.services == {"web", "db", "cache"}
    record = table.get("one")
    assert record is not None and not record.settled

    table.settle("one", "a", SHOP)

    record = table.get("one")
    assert record is not None and record.settled
    assert record.attempted is not None and record.attempted.outcome == "rolled-back"
    assert record.applied is not None and record.applied.commit == "a"
    assert table.inventory("one")[0].services == {"web", "db"}
    assert [entry.outcome for entry in table.history("one")] == ["applied", "rolled-back"]


def test_a_pinned_source_follows_the_revision_that_was_asked_for(table: GitopsTable) -> None:
    for commit in ("a", "b"):
        table.begin("one", attempt(commit), SHOP)
        table.succeed(passage(commit, "applied", SHOP), "digest one")
    table.update("one", pinned=1)
    table.succeed(passage("a", "applied", SHOP), "digest one")
    record = table.get("one")
    assert record is not None and record.applied is not None
    assert record.pinned == record.applied.number == 3
    table.fail(passage("c", "reverting"), "digest one")
    record = table.get("one")
    assert record is not None and record.pinned == 3


def test_reopening_makes_the_last_attempt_count_for_nothing(table: GitopsTable) -> None:
    table.reopen("one")
    table.fail(passage("a", "failed"), "digest one")
    table.reopen("one")
    record = table.get("one")
    assert record is not None and record.attempted is not None
    assert (record.attempted.commit, record.attempted.source) == ("a", "")


def test_old_specs_and_old_attempts_are_let_go(table: GitopsTable) -> None:
    for number in range(KEPT_REVISIONS + 3):
        table.succeed(passage(f"c{number}", "applied", SHOP), "digest one")
    kept = [entry for entry in table.history("one") if entry.projects is not None]
    assert len(kept) == KEPT_REVISIONS
    assert kept[-1].commit == f"c{KEPT_REVISIONS + 2}"
    for number in range(KEPT_ATTEMPTS + 5):
        table.fail(passage(f"f{number}", "failed"), "digest one")
    entries = table.history("one")
    assert sum(entry.projects is None for entry in entries) <= KEPT_ATTEMPTS
    assert sum(entry.projects is not None for entry in entries) == KEPT_REVISIONS


def test_a_source_that_is_removed_takes_its_records_with_it(table: GitopsTable) -> None:
    table.begin("one", attempt("a"), SHOP)
    table.hold("shop", "its volume is in use")
    assert table.inventory("one")[0].error == "its volume is in use"
    assert table.owner("shop") == "one"
    table.remove("one")
    assert table.get("one") is None and table.inventory() == [] and table.owner("shop") is None
    assert [record.name for record in table.all()] == ["two"]


def test_settings_are_kept(table: GitopsTable) -> None:
    assert table.setting("webhook") == ""
    table.put_setting("webhook", "127.0.0.1:9080")
    table.put_setting("webhook", "127.0.0.1:9081")
    assert table.setting("webhook") == "127.0.0.1:9081"
