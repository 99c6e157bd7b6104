"""What a container runs: a service merged over its image, by Docker's rules. Pure.

Source: moby `daemon/commit.go` (merge) and `runconfig`; compose-spec 05-services.md.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.engine.errors import EngineError
from orchestrator.planning.observed import Spec
from runtime.oci.image_config import ImageConfig

DEFAULT_STOP_TIMEOUT = 10.0
DEFAULT_SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The effective process; `health` has Compose's keys and times in nanoseconds, None where
    nothing is probed; `stop_timeout` is in seconds."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    stop_signal: int
    stop_timeout: float
    health: Mapping[str, Any] | None
    shell: tuple[str, ...]


def effective_process(service: Spec, image: ImageConfig, name: str) -> Process:
    """Merge; `name` is the container's, for errors. Raises EngineError where nothing is to run."""
    argv = _argv(service, image)
    if not argv:
        raise EngineError(
            f"container {name} has no command",
            hint="set `command` or `entrypoint`, or CMD in the image",
        )
    grace = service.get("stop_grace_period")
    return Process(
        argv=argv,
        env=_environment(service, image),
        cwd=str(service.get("working_dir") or image.working_dir or "/"),
        user=str(service.get("user") or image.user),
        stop_signal=signal_number(
            str(service.get("stop_signal") or image.stop_signal or "SIGTERM")
        ),
        stop_timeout=grace / 1e9 if grace is not None else DEFAULT_STOP_TIMEOUT,
        health=effective_health(service, image),
        shell=image.shell or DEFAULT_SHELL,
    )


def effective_health(service: Spec, image: ImageConfig) -> Mapping[str, Any] | None:
    """The service's healthcheck over the image's, key by key; None where there is none."""
    own: Mapping[str, Any] = service.get("healthcheck") or {}
    inherited: Mapping[str, Any] = {}
    if image.healthcheck is not None:
        check = image.healthcheck
        inherited = {
            "test": list(check.test),
            "interval": check.interval,
            "timeout": check.timeout,
            "start_period": check.start_period,
            "start_interval": check.start_interval,
            "retries": check.retries,
        }
    if own.get("disable"):
        return None
    keys = ("test", "interval", "timeout", "start_period", "start_interval", "retries")
    merged = {key: own.get(key) or inherited.get(key) for key in keys}
    test = merged["test"]
    if not test or test[0] == "NONE":
        return None
    return {key: value for key, value in merged.items() if value}


def signal_number(text: str) -> int:
    """A signal's number from its name, with or without SIG, or its number as text."""
    if text.isdecimal() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    name = text.upper().removeprefix("SIG")
    real_time = re.fullmatch(r"RT(MIN|MAX)([+-]\d+)?", name)
    if real_time:
        base = signal.SIGRTMIN if real_time[1] == "MIN" else signal.SIGRTMAX
        number = base + int(real_time[2] or 0)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    known = {member.name: int(member) for member in signal.Signals}
    if f"SIG{name}" not in known:
        raise EngineError(f"not a signal: {text}", hint="give a name such as SIGTERM, or a number")
    return known[f"SIG{name}"]


def _argv(service: Spec, image: ImageConfig) -> tuple[str, ...]:
    entrypoint, command = service.get("entrypoint"), service.get("command")
    if entrypoint:
        # An entrypoint of one's own makes the image's CMD meaningless as its arguments.
        return (*entrypoint, *(command or ()))
    inherited = image.entrypoint or () if entrypoint is None else ()
    return (*inherited, *(command if command is not None else image.cmd or ()))


def _environment(service: Spec, image: ImageConfig) -> tuple[str, ...]:
    merged: dict[str, str] = {}
    for entry in image.env:
        key, _, value = entry.partition("=")
        merged[key] = value
    for key in service.get("unset_environment") or ():
        merged.pop(key, None)
    merged.update(service.get("environment") or {})
    return tuple(f"{key}={value}" for key, value in merged.items())
