"""When a container that ended is started again: Docker's restart policies and back-off.

The delay is 100 ms at first, doubles with every restart up to one minute, and begins anew
after a run of 10 s or more (moby, restartmanager). The state is plain data and `now` an
argument, so that it survives the daemon and can be tested without a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from orchestrator.planning.errors import PlanningError

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
LONG_RUN = 10.0
_SLACK = 1.0  # seconds; for two looks at the clock and their rounding

Condition = Literal["no", "on-failure", "always", "unless-stopped"]

_DEPLOY_CONDITIONS: dict[str, Condition] = {
    "none": "no",
    "on-failure": "on-failure",
    "any": "always",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """`attempts` bounds the restarts of `on-failure`, 0 is no bound; `delay` is in seconds and
    replaces the back-off where it is given (deploy.restart_policy.delay)."""

    condition: Condition = "no"
    attempts: int = 0
    delay: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read Compose's `restart`: no, always, unless-stopped, on-failure[:attempts]."""
        name, _, attempts = text.partition(":")
        if name not in ("no", "on-failure", "always", "unless-stopped") or (
            attempts and (name != "on-failure" or not attempts.isdecimal())
        ):
            raise PlanningError(f"not a restart policy: {text}")
        return cls(condition=name, attempts=int(attempts or 0))  # type: ignore[arg-type]  # checked above

    @classmethod
    def of(cls, service: Mapping[str, Any]) -> Self:
        """The policy of a canonical service; `restart` goes before `deploy.restart_policy`."""
        if service.get("restart"):
            return cls.parse(str(service["restart"]))
        deployed = (service.get("deploy") or {}).get("restart_policy")
        if not deployed:
            return cls()
        delay = deployed.get("delay")
        return cls(
            condition=_DEPLOY_CONDITIONS[deployed.get("condition") or "any"],
            attempts=int(deployed.get("max_attempts") or 0),
            delay=delay / 1e9 if delay else None,
        )


def restarts_unhealthy(service: Mapping[str, Any]) -> bool:
    """Whether the service asks to be restarted when it is unhealthy: by
    `x-bayplan.restart_on_unhealthy`, or by the label that docker-autoheal has made known."""
    own = (service.get("extensions") or {}).get("x-bayplan") or {}
    if isinstance(own, Mapping) and own.get("restart_on_unhealthy") is True:
        return True
    return str((service.get("labels") or {}).get("autoheal", "")).lower() == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartState:
    """How often the container was restarted by policy, and the delay in seconds before the
    last restart (0 when there was none, or after a long run)."""

    count: int = 0
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Start the container again at `at` (seconds since the epoch)."""

    at: float
    state: RestartState


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Leave the container as it is; `reason` completes the sentence "not restarted: …"."""

    reason: str
    state: RestartState


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A container that ended; times in seconds since the epoch.

    `stopped` tells that somebody asked for it.
    """

    started_at: float
    finished_at: float
    exit_code: int
    stopped: bool = False


def restart_wait(at: float, delay: float, now: float) -> float:
    """Seconds until the restart that was decided on for `at`; 0 where that is further away than
    its whole delay: then the clock was set back since."""
    wait = at - now
    return wait if 0 < wait <= delay + _SLACK else 0.0


def after_exit(
    policy: RestartPolicy, state: RestartState, exit: Exit, now: float
) -> Restart | Rest:
    """Decide what follows an exit.

    `now` may be long after `finished_at`: a delay that has passed meanwhile is not waited for
    again.
    """
    if exit.stopped:
        return Rest(reason="it was stopped", state=RestartState())
    if policy.condition == "no":
        return Rest(reason="its restart policy is no", state=state)
    if policy.condition == "on-failure" and exit.exit_code == 0:
        return Rest(reason="it completed", state=state)
    if policy.attempts and state.count >= policy.attempts:
        return Rest(reason=f"it was restarted {state.count} times already", state=state)
    long_run = exit.finished_at - exit.started_at >= LONG_RUN
    if policy.delay is not None:
        delay = policy.delay
    elif long_run or state.delay == 0.0:
        delay = FIRST_DELAY
    else:
        delay = min(state.delay * 2, LONGEST_DELAY)
    at = max(now, exit.finished_at + delay)
    return Restart(at=at, state=RestartState(count=state.count + 1, delay=delay))
