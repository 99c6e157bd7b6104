"""What happens around a service's process: health, hooks, dependencies, the dev loop.

Sources: Compose Specification (healthcheck, post_start, pre_start, pre_stop, depends_on) and
Compose Develop Specification.
"""

# ruff: noqa: RUF012  # pydantic copies a field's default for every instance

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from specs.values import (
    Command,
    Flag,
    Model,
    Nanoseconds,
    OptionalTextMap,
    Texts,
    Unsigned,
)


def _read_test(value: Any) -> Any:
    return ("CMD-SHELL", value) if isinstance(value, str) else value or None


class Healthcheck(Model):
    """A probe: `test` starts with CMD, CMD-SHELL or NONE; times in nanoseconds.

    None means that the image's value holds, or the default where it has none.
    """

    test: Annotated[tuple[str, ...] | None, BeforeValidator(_read_test)] = None
    timeout: Nanoseconds | None = None
    interval: Nanoseconds | None = None
    retries: Unsigned | None = None
    start_period: Nanoseconds | None = None
    start_interval: Nanoseconds | None = None
    disable: Flag = False


class Dependency(Model):
    """What a service waits for before it starts.

    `condition` is service_started, service_healthy or service_completed_successfully;
    `restart` restarts the dependent with the dependency; a dependency that is not `required`
    only warns when it is missing.
    """

    condition: str = "service_started"
    restart: Flag = False
    required: Flag = True


class Hook(Model):
    """A command run in the container after its start or before its stop."""

    command: Command | None = None
    user: str = ""
    privileged: Flag = False
    working_dir: str = ""
    environment: OptionalTextMap = {}


class InitHook(Hook):
    """A command run to its end in a container of its own before the service starts.

    `image` None means the service's image.
    """

    image: str | None = None
    per_replica: Flag | None = None


def _read_exec(value: Any) -> Any:
    return None if value == {"command": None} else value


class Watch(Model):
    """A path to watch (absolute), and what to do when something below it changes.

    `action` is rebuild, sync, restart, sync+restart or sync+exec; `ignore` and `include` are
    patterns relative to `path`.
    """

    path: str = ""
    action: str = ""
    target: str = ""
    exec: Annotated[Hook | None, BeforeValidator(_read_exec)] = None
    include: Texts = ()
    ignore: Texts = ()
    initial_sync: Flag = False


class Develop(Model):
    """The dev loop of a service."""

    watch: tuple[Watch, ...] = ()
