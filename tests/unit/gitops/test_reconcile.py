"""What a source needs next, from what is on record, what was seen, and the time."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.gitops_table import Applied, Attempt, Belonging, SourceRecord
from orchestrator.gitops.reconcile import (
    CHECK,
    Apply,
    Probe,
    Rest,
    Return,
    Settle,
    Sight,
    Terms,
    backoff,
    decide,
    departed_services,
    departing,
    find_cycle,
    is_ready,
    must_leave_first,
    removes_everything,
)

NOW = 1_000_000.0
TERMS = Terms(interval=60.0, retries=3, backoff=2.0, longest_backoff=300.0)
QUIET = Sight(head="a", probed_at=NOW, checked_at=NOW)


def record(**changes: Any) -> SourceRecord:
    plain = SourceRecord(
        name="shop",
        document={},
        digest="d",
        suspended=False,
        pinned=None,
        settled=True,
        attempted=None,
        applied=None,
        created_at=0.0,
    )
    return dataclasses.replace(plain, **changes)


def tried(commit: str, outcome: Any, source: str = "d") -> Attempt:
    return Attempt(commit=commit, source=source, at=NOW, outcome=outcome)


def stands(commit: str, number: int = 1) -> Applied:
    return Applied(commit=commit, source="d", at=NOW, number=number)


GOOD = record(attempted=tried("a", "applied"), applied=stands("a"))


def test_a_source_that_nobody_has_looked_at_asks_its_repository() -> None:
    assert decide(record(), TERMS, Sight(), NOW) == Probe()
    assert decide(GOOD, TERMS, QUIET, NOW + TERMS.interval) == Probe()
    assert decide(GOOD, TERMS, dataclasses.replace(QUIET, wanted=True), NOW) == Probe()


def test_a_commit_that_was_not_tried_is_applied() -> None:
    assert decide(record(), TERMS, QUIET, NOW) == Apply(commit="a")
    assert decide(GOOD, TERMS, dataclasses.replace(QUIET, head="b"), NOW) == Apply(commit="b")


def test_what_stands_and_is_wanted_rests_until_the_next_look() -> None:
    assert decide(GOOD, TERMS, QUIET, NOW) == Rest(until=NOW + TERMS.interval)


def test_a_commit_that_failed_is_tried_again_only_when_something_has_changed() -> None:
    for outcome in ("failed", "rolled-back", "planned"):
        failed = record(attempted=tried("a", outcome), applied=stands("z"))
        assert decide(failed, TERMS, QUIET, NOW) == Rest(until=NOW + TERMS.interval)
        assert decide(dataclasses.replace(failed, digest="e"), TERMS, QUIET, NOW) == Apply(
            commit="a"
        )
        newer = dataclasses.replace(QUIET, head="b")
        assert decide(failed, TERMS, newer, NOW) == Apply(commit="b")


def test_what_a_killed_daemon_left_is_taken_on() -> None:
    begun = record(attempted=tried("a", "applying"), applied=stands("z"), settled=False)
    assert decide(begun, TERMS, Sight(), NOW) == Probe()
    assert decide(begun, TERMS, QUIET, NOW) == Apply(commit="a")
    reverting = record(attempted=tried("a", "reverting"), applied=stands("z"), settled=False)
    assert decide(reverting, TERMS, QUIET, NOW) == Settle()


def test_what_is_half_done_is_brought_back_even_when_the_repository_is_silent() -> None:
    lost = Sight(probed_at=NOW, failures=1, failed_at=NOW)
    half = record(attempted=tried("b", "applying"), applied=stands("a"), settled=False)
    assert decide(half, TERMS, lost, NOW) == Settle()


def test_transport_errors_are_retried_with_growing_pauses_and_then_by_the_interval() -> None:
    pauses = []
    for failures in range(1, 6):
        lost = dataclasses.replace(QUIET, failures=failures, failed_at=NOW)
        step = decide(GOOD, TERMS, lost, NOW)
        assert isinstance(step, Rest) and step.until is not None
        pauses.append(step.until - NOW)
    assert pauses == [2.0, 4.0, 8.0, 60.0, 60.0]
    assert backoff(10_000, TERMS) == TERMS.longest_backoff


def test_an_attempt_without_a_connection_is_made_again_later_and_what_stands_is_brought_back() -> (
    None
):
    half = record(attempted=tried("b", "applying"), applied=stands("a"), settled=False)
    set_back = dataclasses.replace(QUIET, head="b", setbacks=2, setback_at=NOW)
    assert decide(half, TERMS, set_back, NOW) == Settle()
    settled = dataclasses.replace(half, settled=True)
    assert decide(settled, TERMS, set_back, NOW) == Rest(until=NOW + 4.0)
    assert decide(settled, TERMS, set_back, NOW + 4.0) == Apply(commit="b")


def test_a_suspended_source_needs_nothing_whatever_happens() -> None:
    held = dataclasses.replace(GOOD, suspended=True, settled=False)
    sight = Sight(head="b", wanted=True, suspect=True)
    assert decide(held, TERMS, sight, NOW) == Rest()


def test_a_source_that_is_suspended_meanwhile_is_still_taken_back() -> None:
    half = record(
        attempted=tried("b", "reverting"), applied=stands("a"), settled=False, suspended=True
    )
    sight = Sight(head="c", wanted=True)
    assert decide(half, TERMS, sight, NOW) == Settle()
    done = dataclasses.replace(half, settled=True, attempted=tried("b", "rolled-back"))
    assert decide(done, TERMS, sight, NOW) == Rest()


def test_a_pinned_source_returns_stays_and_is_kept_as_it_is() -> None:
    pinned = dataclasses.replace(GOOD, pinned=7)
    assert decide(pinned, TERMS, QUIET, NOW) == Return(number=7)
    there = dataclasses.replace(pinned, applied=stands("z", 7))
    newer = dataclasses.replace(QUIET, head="b", wanted=True)
    assert decide(there, TERMS, newer, NOW) == Rest(until=NOW + CHECK)
    assert decide(there, TERMS, dataclasses.replace(QUIET, suspect=True), NOW) == Settle()


def test_resuming_after_a_return_applies_the_newest_commit_once_more() -> None:
    back = record(attempted=tried("z", "applied"), applied=stands("z", 3))
    assert decide(back, TERMS, QUIET, NOW) == Apply(commit="a")


def test_a_source_waits_for_others_and_keeps_what_it_has() -> None:
    waiting = dataclasses.replace(QUIET, head="b", unready=("base",))
    assert decide(GOOD, TERMS, waiting, NOW) == Rest(until=NOW + TERMS.interval)
    suspect = dataclasses.replace(waiting, suspect=True)
    assert decide(GOOD, TERMS, suspect, NOW) == Settle()


def test_a_dry_source_puts_nothing_right() -> None:
    dry = dataclasses.replace(TERMS, dry_run=True)
    suspect = dataclasses.replace(QUIET, suspect=True)
    assert decide(GOOD, dry, suspect, NOW) == Rest(until=NOW + TERMS.interval)


def test_a_change_from_outside_is_looked_at_at_once_but_not_without_a_pause() -> None:
    suspect = dataclasses.replace(QUIET, suspect=True)
    assert decide(GOOD, TERMS, suspect, NOW) == Settle()
    again = dataclasses.replace(suspect, troubles=2, troubled_at=NOW)
    assert decide(GOOD, TERMS, again, NOW) == Rest(until=NOW + 4.0)


def test_only_what_stands_and_was_tried_last_counts_as_ready() -> None:
    assert is_ready(GOOD)
    assert not is_ready(None)
    assert not is_ready(record(attempted=tried("a", "failed")))
    assert not is_ready(record(attempted=tried("b", "rolled-back"), applied=stands("a")))


def test_a_cycle_is_named_along_its_way() -> None:
    assert find_cycle({"a": ["b"], "b": ["c"], "c": []}) == ()
    assert find_cycle({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": ()}) == ()
    assert find_cycle({"x": ["a"], "a": ["b"], "b": ["a"]}) == ("a", "b", "a")
    assert find_cycle({"a": ["a"]}) == ("a", "a")


def belonging(project: str, *services: str, spec: Any = None) -> Belonging:
    return Belonging(
        project=project,
        source="s",
        commit="a",
        spec=spec or {"services": {name: {} for name in services}},
        services=frozenset(services),
    )


def test_what_has_left_is_known_from_the_inventory() -> None:
    owned = [belonging("one", "web", "db"), belonging("two", "web")]
    projects: dict[str, Any] = {"one": {"services": {"web": {}}, "disabled_services": {"db": {}}}}
    assert [b.project for b in departing(owned, projects)] == ["two"]
    assert departed_services(owned[0], projects["one"]) == frozenset()
    assert departed_services(owned[0], {"services": {"web": {}}}) == {"db"}
    assert departed_services(None, projects["one"]) == frozenset()


def test_removing_everything_is_noticed() -> None:
    owned = [belonging("one", "web")]
    assert removes_everything(owned, {})
    assert removes_everything(owned, {"two": {"services": {}}})
    assert not removes_everything(owned, {"two": {"services": {"web": {}}}})
    assert not removes_everything([], {})


def test_what_holds_a_needed_port_or_name_goes_first() -> None:
    port = {"ports": [{"target": 80, "published": "8080", "protocol": "tcp"}]}
    other = {"ports": [{"target": 80, "published": "8081", "protocol": "tcp"}]}
    leaving = {"services": {"web": port}}
    assert must_leave_first(leaving, {"new": {"services": {"site": port}}})
    assert not must_leave_first(leaving, {"new": {"services": {"site": other}}})
    named = {"services": {"web": {"container_name": "front"}}}
    assert must_leave_first(named, {"new": named})
    outside = {"services": {}, "networks": {"n": {"name": "shared", "external": True}}}
    assert not must_leave_first(outside, {"new": outside})


commits = st.sampled_from(["a", "b", "c"])
outcomes = st.sampled_from(["applying", "applied", "failed", "reverting", "rolled-back"])
records = st.builds(
    record,
    digest=st.sampled_from(["d", "e"]),
    settled=st.booleans(),
    attempted=st.none() | st.builds(tried, commits, outcomes),
    applied=st.none() | st.builds(stands, commits, st.integers(1, 3)),
    pinned=st.none() | st.integers(1, 3),
)
sights = st.builds(
    Sight,
    head=st.none() | commits,
    probed_at=st.none() | st.floats(NOW - 100, NOW),
    failures=st.integers(0, 6),
    failed_at=st.floats(NOW - 100, NOW),
    wanted=st.booleans(),
    suspect=st.booleans(),
    checked_at=st.none() | st.floats(NOW - 100, NOW),
    troubles=st.integers(0, 3),
    troubled_at=st.floats(NOW - 100, NOW),
)


@given(records, sights)
def test_a_failed_commit_is_never_applied_again_as_it_is(found: SourceRecord, sight: Sight) -> None:
    step = decide(found, TERMS, sight, NOW)
    if isinstance(step, Apply) and found.attempted is not None:
        same = found.attempted.commit == step.commit and found.attempted.source == found.digest
        assert not (same and found.attempted.outcome in ("failed", "reverting", "rolled-back"))


@given(records, sights)
def test_a_rest_ends_in_the_future_and_leaves_nothing_half_done(
    found: SourceRecord, sight: Sight
) -> None:
    step = decide(found, TERMS, sight, NOW)
    if isinstance(step, Rest):
        assert step.until is None or step.until > NOW
        if found.applied is not None and not found.settled:
            # It is being retried: there is a time for it.
            assert sight.troubles and step.until is not None


@given(records, sights, st.lists(st.sampled_from(["good", "bad"]), max_size=6))
def test_steps_come_to_a_rest(found: SourceRecord, sight: Sight, health: list[str]) -> None:
    """Carrying out what is decided ends with a rest, and with the last healthy revision."""
    fates = iter(health)
    for _ in range(20):
        step = decide(found, TERMS, sight, NOW)
        match step:
            case Rest():
                break
            case Probe():
                head = sight.head or "a"
                sight = dataclasses.replace(
                    sight, head=head, probed_at=NOW, wanted=False, failures=0
                )
            case Apply(commit=commit):
                if next(fates, "good") == "good":
                    found = dataclasses.replace(
                        found,
                        attempted=tried(commit, "applied", found.digest),
                        applied=stands(commit, 9),
                        settled=False,
                    )
                else:
                    found = dataclasses.replace(
                        found,
                        attempted=tried(
                            commit, "reverting" if found.applied else "failed", found.digest
                        ),
                        settled=False,
                    )
            case Return(number=number):
                found = dataclasses.replace(found, applied=stands("c", number), settled=False)
            case Settle():
                last = found.attempted
                if last is not None and last.outcome == "reverting":
                    last = dataclasses.replace(last, outcome="rolled-back")
                found = dataclasses.replace(found, settled=True, attempted=last)
                sight = dataclasses.replace(sight, checked_at=NOW, suspect=False, troubles=0)
    else:
        raise AssertionError(f"no rest: {found} {sight}")
    assert found.settled or found.applied is None or sight.troubles


def test_a_clock_that_was_set_back_puts_nothing_off() -> None:
    earlier = NOW - 10_000
    assert decide(GOOD, TERMS, QUIET, earlier) == Probe()
    asked = dataclasses.replace(QUIET, probed_at=earlier)
    assert decide(GOOD, TERMS, asked, earlier) == Settle()
    silent = dataclasses.replace(QUIET, failures=2, failed_at=NOW)
    assert decide(GOOD, TERMS, silent, earlier) == Probe()
    troubled = dataclasses.replace(asked, troubles=3, troubled_at=NOW)
    assert decide(GOOD, TERMS, troubled, earlier) == Settle()
    cut_off = dataclasses.replace(asked, head="b", setbacks=3, setback_at=NOW)
    assert decide(GOOD, TERMS, cut_off, earlier) == Apply(commit="b")
