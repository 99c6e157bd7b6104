"""What a source needs next, from what is on record, what has been seen of it, and the time.

Nothing here depends on how the source came to be as it is: a daemon that was killed anywhere
finds on record what was begun, and the same decision takes it on. Pure.

A revision is applied when it is another than the last one tried, or the source's definition is.
One that failed is not tried again until either changes or a person asks for it. What stands is
brought back to the last revision that proved healthy whenever it is not known to be that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.engine.gitops_table import Belonging, SourceRecord

CHECK = 60.0
"""Seconds between two looks at whether what stands is still as it was applied, when nothing has
told of a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The times of a source's definition, in seconds; `retries` times a transport error is
    retried after `backoff`, doubled up to `longest_backoff`, and then every `interval`."""

    interval: float
    retries: int
    backoff: float
    longest_backoff: float
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What this daemon has seen of a source; a new daemon begins with nothing.

    `head` is the commit that the repository last named. `failures` are transport errors in a
    row, the last at `failed_at`; `troubles` are attempts in a row to bring back what was
    applied that did not succeed; `setbacks` are attempts in a row at the present head that ended
    for want of a connection, the last at `setback_at` for the reason `setback`. `wanted` is set
    when somebody asked for a look, `suspect` when something of the source's was changed,
    `unready` are the sources that it waits for.
    """

    head: str | None = None
    probed_at: float | None = None
    failures: int = 0
    failed_at: float = 0.0
    reason: str = ""
    message: str = ""
    wanted: bool = False
    suspect: bool = False
    checked_at: float | None = None
    troubles: int = 0
    troubled_at: float = 0.0
    trouble: str = ""
    setbacks: int = 0
    setback_at: float = 0.0
    setback: str = ""
    unready: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Ask the repository where the reference stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Fetch, verify, check out, render, plan and apply this commit, and wait until it is
    healthy; in dry mode only plan."""

    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """Apply the revision of this number once more, as a person asked."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Have what stands be what the last healthy revision says, and remove what has left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """There is nothing to do before `until`, in seconds since the epoch, or at all."""

    until: float | None = None


Step = Probe | Apply | Return | Settle | Rest


def decide(record: SourceRecord, terms: Terms, sight: Sight, now: float) -> Step:
    """What the source needs at `now`, in seconds since the epoch."""
    sight = _until(sight, now)
    pinned, held = record.pinned, record.suspended or record.pinned is not None
    if record.suspended and not _is_reverting(record):
        return Rest()
    if (
        pinned is not None
        and not record.suspended
        and (record.applied is None or record.applied.number != pinned)
    ):
        return Return(number=pinned)
    times = []
    if not held:
        probe = next_probe(terms, sight)
        if now >= probe:
            return Probe()
        times.append(probe)
        if sight.head and is_due(record, sight.head) and not sight.unready:
            attempt = max(
                _after(sight.failures, sight.failed_at, terms),
                _after(sight.setbacks, sight.setback_at, terms),
            )
            if now >= attempt:
                return Apply(commit=sight.head)
            times.append(attempt)
    if record.applied is not None and not terms.dry_run:
        check = _next_check(record, terms, sight)
        if now >= check:
            return Settle()
        times.append(check)
    return Rest(until=min(times, default=None))


def _until(sight: Sight, now: float) -> Sight:
    """What was seen up to `now`: a clock that was set back must not put off for hours what is
    due every minute, so what seems to come from the future counts as long past."""
    return replace(
        sight,
        probed_at=None if (sight.probed_at or 0.0) > now else sight.probed_at,
        checked_at=None if (sight.checked_at or 0.0) > now else sight.checked_at,
        failed_at=sight.failed_at if sight.failed_at <= now else 0.0,
        troubled_at=sight.troubled_at if sight.troubled_at <= now else 0.0,
        setback_at=sight.setback_at if sight.setback_at <= now else 0.0,
    )


def _is_reverting(record: SourceRecord) -> bool:
    """Whether a failed revision is being taken back, which is finished in any case."""
    return record.attempted is not None and record.attempted.outcome == "reverting"


def is_due(record: SourceRecord, head: str) -> bool:
    """Whether this commit, which the repository names, is to be applied."""
    last = record.attempted
    if last is None or last.commit != head or last.source != record.digest:
        return True
    if last.outcome == "applying":
        return True
    return last.outcome == "applied" and (record.applied is None or record.applied.commit != head)


def next_probe(terms: Terms, sight: Sight) -> float:
    """When the repository is asked next."""
    if sight.wanted or sight.probed_at is None:
        return 0.0
    if sight.failures:
        return _after(sight.failures, sight.failed_at, terms)
    return sight.probed_at + terms.interval


def _after(failures: int, at: float, terms: Terms) -> float:
    """When what failed so many times in a row, the last at `at`, is tried again."""
    if not failures:
        return 0.0
    if failures > terms.retries:
        return at + terms.interval
    return at + backoff(failures, terms)


def backoff(failures: int, terms: Terms) -> float:
    """Seconds to wait after so many failures in a row."""
    # 2**60 of anything is over every maximum, and no float overflows.
    return float(min(terms.backoff * 2 ** min(failures - 1, 60), terms.longest_backoff))


def _next_check(record: SourceRecord, terms: Terms, sight: Sight) -> float:
    if sight.troubles:
        return sight.troubled_at + backoff(sight.troubles, terms)
    if not record.settled or sight.suspect or sight.checked_at is None:
        return 0.0
    return sight.checked_at + max(CHECK, terms.interval)


def is_ready(record: SourceRecord | None) -> bool:
    """Whether sources that depend on this one may go ahead: what was tried last is what stands,
    and proved healthy."""
    return (
        record is not None
        and record.applied is not None
        and record.attempted is not None
        and record.attempted.outcome == "applied"
    )


def find_cycle(needs: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The sources along a cycle of dependencies, the first one again at the end; () where there
    is none."""
    done: set[str] = set()
    for start in sorted(needs):
        trail: list[str] = []
        pending: list[tuple[str, bool]] = [(start, True)]
        while pending:
            name, entering = pending.pop()
            if not entering:
                done.add(trail.pop())
            elif name in trail:
                return (*trail[trail.index(name) :], name)
            elif name not in done:
                trail.append(name)
                pending.append((name, False))
                pending += [(other, True) for other in sorted(needs.get(name, ()), reverse=True)]
    return ()


def removes_everything(inventory: Iterable[Belonging], projects: Mapping[str, Any]) -> bool:
    """Whether a source that has something running would be left with no service at all."""
    runs = any(belonging.services for belonging in inventory)
    return runs and not any(spec.get("services") for spec in projects.values())


def departing(inventory: Iterable[Belonging], projects: Mapping[str, Any]) -> tuple[Belonging, ...]:
    """The projects of a source that are not among these any more."""
    return tuple(belonging for belonging in inventory if belonging.project not in projects)


def departed_services(belonging: Belonging | None, spec: Mapping[str, Any]) -> frozenset[str]:
    """The services that a source may have put into a project, and that it has no more."""
    if belonging is None:
        return frozenset()
    return belonging.services - set(spec["services"]) - set(spec.get("disabled_services") or ())


def must_leave_first(leaving: Mapping[str, Any], projects: Mapping[str, Any]) -> bool:
    """Whether a project that leaves holds a name or a published port that one of these needs;
    else it goes when they have proved healthy."""
    held = _claims(leaving)
    return any(held & _claims(spec) for spec in projects.values())


def _claims(spec: Mapping[str, Any]) -> set[tuple[str, str]]:
    claims: set[tuple[str, str]] = set()
    for service in spec["services"].values():
        if service.get("container_name"):
            claims.add(("container", service["container_name"]))
        for port in service.get("ports") or ():
            if port.get("published"):
                claims.add((port.get("protocol") or "tcp", str(port["published"])))
    for kind in ("networks", "volumes"):
        for resource in (spec.get(kind) or {}).values():
            if resource.get("name") and not resource.get("external"):
                claims.add((kind, resource["name"]))
    return claims
