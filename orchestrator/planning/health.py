"""A container's health as a state machine: probe results in, a new state and a time out.

The rules are Docker's (moby, daemon/health.go): the first probe runs one interval after the
start; in the start period probes run every start interval and a failure does not count; any
success makes the container healthy; `retries` failures in a row make it unhealthy; the last
5 results are kept, 4096 bytes of output each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from orchestrator.planning.observed import HealthStatus

INTERVAL = 30.0
TIMEOUT = 30.0
START_INTERVAL = 5.0
RETRIES = 3

KEPT_RESULTS = 5
KEPT_OUTPUT = 4096
TIMED_OUT = -1

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """What is probed and how often; times in seconds.

    `test` begins with CMD or CMD-SHELL, as in Compose.
    """

    test: tuple[str, ...]
    interval: float = INTERVAL
    timeout: float = TIMEOUT
    start_period: float = 0.0
    start_interval: float = START_INTERVAL
    retries: int = RETRIES

    @classmethod
    def of(
        cls, service: Mapping[str, Any] | None, image: Mapping[str, Any] | None = None
    ) -> Self | None:
        """Merge a service's healthcheck over the image's; None where nothing is probed.

        Both are maps with Compose's keys and times in nanoseconds. A value that is unset or 0
        in the service is inherited from the image, as Docker does.
        """
        service, image = service or {}, image or {}
        if service.get("disable"):
            return None
        test = tuple(service.get("test") or image.get("test") or ())
        if not test or test[0] == "NONE":
            return None

        def merged(key: str) -> int | None:
            return service.get(key) or image.get(key) or None

        def seconds(key: str, default: float) -> float:
            nanoseconds = merged(key)
            return default if nanoseconds is None else nanoseconds / _SECOND

        return cls(
            test=test,
            interval=seconds("interval", INTERVAL),
            timeout=seconds("timeout", TIMEOUT),
            start_period=seconds("start_period", 0.0),
            start_interval=seconds("start_interval", START_INTERVAL),
            retries=merged("retries") or RETRIES,
        )

    def argv(self, shell: tuple[str, ...] = ("/bin/sh", "-c")) -> tuple[str, ...]:
        """The command to run; `shell` is the image's (Dockerfile SHELL)."""
        kind, *rest = self.test
        if kind == "CMD":
            return tuple(rest)
        return (*shell, " ".join(rest)) if kind == "CMD-SHELL" else self.test


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One probe; times in seconds since the epoch, `exit_code` -1 when it timed out."""

    started_at: float
    finished_at: float
    exit_code: int
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthState:
    """`failing_streak` counts the failures in a row that matter; `results` are oldest first."""

    status: HealthStatus = "starting"
    failing_streak: int = 0
    results: tuple[ProbeResult, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        return cls(
            status=raw["status"],
            failing_streak=raw["failing_streak"],
            results=tuple(ProbeResult(**result) for result in raw["results"]),
        )


def after_probe(
    check: HealthCheck, state: HealthState, result: ProbeResult, container_started_at: float
) -> HealthState:
    """The state after a probe's result."""
    output = result.output.encode()[:KEPT_OUTPUT].decode(errors="ignore")
    kept = ProbeResult(
        started_at=result.started_at,
        finished_at=result.finished_at,
        exit_code=result.exit_code,
        output=output,
    )
    results = (*state.results, kept)[-KEPT_RESULTS:]
    if result.exit_code == 0:
        return HealthState(status="healthy", failing_streak=0, results=results)
    # Less than nothing is no start period, but a clock that was set back.
    since_start = result.started_at - container_started_at
    excused = state.status == "starting" and 0 <= since_start < check.start_period
    streak = state.failing_streak + (0 if excused else 1)
    status: HealthStatus = "unhealthy" if streak >= check.retries else state.status
    return HealthState(status=status, failing_streak=streak, results=results)


def next_probe(
    check: HealthCheck, state: HealthState, container_started_at: float, now: float
) -> float:
    """When the next probe is due, in seconds since the epoch.

    It depends on what is recorded alone, so a daemon that was away probes at once if a probe
    fell into its absence.
    """
    last = state.results[-1].finished_at if state.results else container_started_at
    # Results of an earlier run of the same container do not delay this run's first probe.
    last = max(last, container_started_at)
    # After a clock was set back the past is no later than now.
    last = min(last, now)
    in_start_period = 0 <= last - container_started_at < check.start_period
    interval = (
        check.start_interval if in_start_period and state.status == "starting" else check.interval
    )
    return max(now, last + interval)
