"""Paths at which a string stands for a number or a boolean, and how it is read.

Interpolation makes strings of everything (`replicas: ${N}`); at these paths the string is
turned back before the schema looks at it. The table is the ecosystem's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from specs.patterns import Patterns

Cast = Callable[[str], int | float | bool]

_TRUE = frozenset({"true", "y", "yes", "on"})
_FALSE = frozenset({"false", "n", "no", "off"})
_INTEGER = re.compile(r"[-+]?[0-9]+")


class CastError(ValueError):
    """A string cannot be read as the type that its path asks for."""


def to_integer(text: str) -> int:
    """A decimal integer of 64 bits."""
    if not _INTEGER.fullmatch(text) or len(text) > 20:
        raise CastError(f"{text!r} is not an integer")
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise CastError(f"{text!r} does not fit into 64 bits")
    return value


def to_number(text: str) -> float:
    """A floating point number."""
    try:
        if text != text.strip():
            raise ValueError
        value = float(text)
        if not math.isfinite(value):
            raise ValueError
    except ValueError as exc:
        raise CastError(f"{text!r} is not a number") from exc
    return value


def to_boolean(text: str) -> bool:
    """`true`, `false` and YAML 1.1's other words for them, in any case."""
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise CastError(f"{text!r} is not a boolean")


CASTS: Patterns[Cast] = Patterns(
    {
        "services.*.cpu_count": to_integer,
        "services.*.cpu_percent": to_number,
        "services.*.cpu_period": to_integer,
        "services.*.cpu_quota": to_integer,
        "services.*.cpu_rt_period": to_integer,
        "services.*.cpu_rt_runtime": to_integer,
        "services.*.cpu_shares": to_integer,
        "services.*.cpus": to_number,
        "services.*.deploy.placement.max_replicas_per_node": to_integer,
        "services.*.deploy.replicas": to_integer,
        "services.*.deploy.restart_policy.max_attempts": to_integer,
        "services.*.deploy.rollback_config.max_failure_ratio": to_number,
        "services.*.deploy.rollback_config.parallelism": to_integer,
        "services.*.deploy.update_config.max_failure_ratio": to_number,
        "services.*.deploy.update_config.parallelism": to_integer,
        "services.*.healthcheck.disable": to_boolean,
        "services.*.healthcheck.retries": to_integer,
        "services.*.init": to_boolean,
        "services.*.oom_kill_disable": to_boolean,
        "services.*.oom_score_adj": to_integer,
        "services.*.pids_limit": to_integer,
        "services.*.ports.*.target": to_integer,
        "services.*.privileged": to_boolean,
        "services.*.read_only": to_boolean,
        "services.*.scale": to_integer,
        "services.*.stdin_open": to_boolean,
        "services.*.tty": to_boolean,
        "services.*.ulimits.*": to_integer,
        "services.*.ulimits.*.hard": to_integer,
        "services.*.ulimits.*.soft": to_integer,
        "services.*.volumes.*.read_only": to_boolean,
        "services.*.volumes.*.volume.nocopy": to_boolean,
        "configs.*.external": to_boolean,
        "networks.*.attachable": to_boolean,
        "networks.*.enable_ipv6": to_boolean,
        "networks.*.external": to_boolean,
        "networks.*.internal": to_boolean,
        "secrets.*.external": to_boolean,
        "volumes.*.external": to_boolean,
    }
)
