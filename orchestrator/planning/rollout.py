"""How a service comes from one form to the next: the strategy, and what becomes of a failure.

Source: Compose Deploy Specification (update_config, rollback_config; defaults are Swarm's).
`x-bayplan.canary` sends some replicas ahead; it is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeVar

from orchestrator.planning.errors import PlanningError
from orchestrator.planning.observed import Spec

Order = Literal["start-first", "stop-first"]
FailureAction = Literal["pause", "continue", "rollback"]

MONITOR = 5.0
DRAIN = 10.0
DEADLINE = 300.0
EXTENSION = "x-bayplan"

_SECOND = 1_000_000_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """Times in seconds; `parallelism` 0 is all at once. `canary` replicas go ahead of all
    others, which follow by themselves, or with `promote` manual once somebody says so."""

    order: Order = "stop-first"
    parallelism: int = 1
    delay: float = 0.0
    monitor: float = MONITOR
    max_failure_ratio: float = 0.0
    failure_action: FailureAction = "pause"
    canary: int = 0
    promote: Literal["auto", "manual"] = "auto"
    drain: float = DRAIN
    deadline: float = DEADLINE

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        return cls(**raw)

    def tolerated(self, replicas: int) -> int:
        """How many of so many replicas may fail."""
        return math.floor(self.max_failure_ratio * replicas)

    def batches(self, replicas: Sequence[T], ahead: int = 0) -> list[Sequence[T]]:
        """The replicas in the order in which they go, those together that go at once; `ahead`
        canaries are of the new form already."""
        canary = max(0, self.canary - ahead)
        batches: list[Sequence[T]] = [replicas[:canary]] if replicas[:canary] else []
        rest = replicas[canary:]
        size = self.parallelism or len(rest) or 1
        return [*batches, *(rest[i : i + size] for i in range(0, len(rest), size))]


def extension(service: Mapping[str, Any]) -> Mapping[str, Any]:
    """The service's `x-bayplan`, empty where there is none."""
    found = (service.get("extensions") or {}).get(EXTENSION) or {}
    if not isinstance(found, Mapping):
        raise PlanningError(f"service {service.get('name')}: {EXTENSION} must be a mapping")
    return found


def strategy(service: Spec) -> Strategy | None:
    """The strategy that a service asks for; None where its replicas are simply replaced."""
    config = (service.get("deploy") or {}).get("update_config")
    canary = extension(service).get("canary")
    if config is None and not canary:
        return None
    return _strategy(service, config or {}, canary)


def rollback_strategy(service: Spec, forward: Strategy) -> Strategy:
    """How it comes back: by rollback_config, else as it went, without canaries."""
    config = (service.get("deploy") or {}).get("rollback_config")
    if config is None:
        return Strategy(**{**asdict(forward), "canary": 0, "promote": "auto"})
    return _strategy(service, config, None)


def _strategy(service: Spec, config: Mapping[str, Any], canary: Any) -> Strategy:
    name, own = service.get("name"), extension(service)

    def seconds(value: Any, default: float) -> float:
        return value / _SECOND if value else default

    def one_of(key: str, allowed: tuple[str, ...], default: str) -> Any:
        value = config.get(key) or default
        if value not in allowed:
            raise PlanningError(
                f"service {name}: {key} {value} is not known", hint=f"use {', '.join(allowed)}"
            )
        return value

    settings = canary if isinstance(canary, Mapping) else {"replicas": canary or 0}
    promote = settings.get("promote", "auto")
    ahead = settings.get("replicas", 1)
    if promote not in ("auto", "manual") or type(ahead) is not int or ahead < 0:
        raise PlanningError(
            f"service {name}: {EXTENSION}.canary is not understood",
            hint="give a number, or a mapping of replicas and promote (auto or manual)",
        )
    parallelism = config.get("parallelism")
    order: Order = one_of(
        "order", ("start-first", "stop-first"), _canary_order(service) if ahead else "stop-first"
    )
    return Strategy(
        order=order,
        parallelism=1 if parallelism is None else int(parallelism),
        delay=seconds(config.get("delay"), 0.0),
        monitor=seconds(config.get("monitor"), MONITOR),
        max_failure_ratio=float(config.get("max_failure_ratio") or 0.0),
        failure_action=one_of(
            "failure_action",
            ("pause", "continue", "rollback"),
            "rollback" if ahead and promote == "auto" else "pause",
        ),
        canary=ahead,
        promote=promote,
        drain=_number(own, "drain", DRAIN, name),
        deadline=_number(own, "deadline", DEADLINE, name),
    )


def _canary_order(service: Spec) -> Order:
    """A canary stands beside what it may replace, unless both would write to the same data."""
    writes = any(
        mount.get("type") in ("volume", "bind") and not mount.get("read_only")
        for mount in service.get("volumes") or ()
    )
    return "stop-first" if writes else "start-first"


def obstacle(service: Spec) -> str | None:
    """Why two generations of a replica cannot run side by side, if so."""
    if service.get("network_mode") == "host":
        return "its ports are the host's"
    for key, options in sorted((service.get("networks") or {}).items()):
        if (options or {}).get("ipv4_address") or (options or {}).get("mac_address"):
            return f"its address on network {key} is fixed"
    if service.get("mac_address"):
        return "its address is fixed"
    return None


def _number(settings: Mapping[str, Any], key: str, default: float, name: Any) -> float:
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise PlanningError(
            f"service {name}: {EXTENSION}.{key} must be a number of seconds, not {value!r}"
        )
    return float(value)
