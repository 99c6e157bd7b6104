"""`deploy` of a service: replicas, resources, rollout. Source: Compose Deploy Specification."""

# ruff: noqa: RUF012  # pydantic copies a field's default for every instance

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from specs.values import (
    Bytes,
    Integer,
    Model,
    Nanoseconds,
    Number,
    TextMap,
    Texts,
    Unsigned,
)


def _read_device_count(value: Any) -> Any:
    if value == "all":
        return -1
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError as exc:
            raise ValueError(f"{value!r} is neither a number nor all") from exc
    return value


class DeviceRequest(Model):
    """Devices by capability; `count` is -1 for all of them."""

    capabilities: Texts = ()
    driver: str = ""
    count: Annotated[int, BeforeValidator(_read_device_count)] = 0
    device_ids: Texts = ()
    options: TextMap = {}


class DiscreteResource(Model):
    """A countable resource that the person defines."""

    kind: str = ""
    value: Integer = 0


class GenericResource(Model):
    """A resource that the person defines."""

    discrete_resource_spec: DiscreteResource | None = None


class Resource(Model):
    """Limits or reservations: `cpus` in CPUs, `memory` in bytes, `pids` as a count."""

    cpus: Number = 0
    memory: Bytes = 0
    pids: Integer = 0
    devices: tuple[DeviceRequest, ...] = ()
    generic_resources: tuple[GenericResource, ...] = ()


class Resources(Model):
    """What a replica may use at most, and what is kept for it."""

    limits: Resource | None = None
    reservations: Resource | None = None


class UpdateConfig(Model):
    """How replicas are replaced: `parallelism` at a time, `delay` (ns) apart."""

    parallelism: Unsigned | None = None
    delay: Nanoseconds = 0
    failure_action: str = ""
    monitor: Nanoseconds = 0
    max_failure_ratio: Number = 0
    order: str = ""


class RestartPolicy(Model):
    """When a replica is started again: `condition` none, on-failure or any; times in ns."""

    condition: str = ""
    delay: Nanoseconds | None = None
    max_attempts: Unsigned | None = None
    window: Nanoseconds | None = None


class PlacementPreference(Model):
    """A preference of placement."""

    spread: str = ""


class Placement(Model):
    """Where replicas may run."""

    constraints: tuple[str, ...] = ()
    preferences: tuple[PlacementPreference, ...] = ()
    max_replicas_per_node: Unsigned = 0


class Deploy(Model):
    """How a service is run: `replicas` of it, within `resources`, replaced by `update_config`."""

    mode: str = ""
    replicas: Integer | None = None
    labels: TextMap = {}
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None
    resources: Resources = Resources.model_construct()
    restart_policy: RestartPolicy | None = None
    placement: Placement = Placement.model_construct()
    endpoint_mode: str = ""
