"""A service: everything that one kind of container of the project is made from.

Fields stand in the order in which Compose prints them. A field that is None was not given; an
empty one was given empty, or cannot be told apart from one that was not.
Source: Compose Specification, services.
"""

# ruff: noqa: RUF012  # pydantic copies a field's default for every instance

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from specs.build import Build, Ulimit
from specs.deploy import Deploy, DeviceRequest
from specs.lifecycle import Dependency, Develop, Healthcheck, Hook, InitHook
from specs.mounts import FileReference, ServiceVolume
from specs.values import (
    Bytes,
    Command,
    Flag,
    Hosts,
    Integer,
    Model,
    Nanoseconds,
    NullableText,
    Number,
    Text,
    TextMap,
    Texts,
    Unsigned,
)


def _published(value: object) -> object:
    # An empty text is what an unset variable leaves.
    return str(value) if type(value) is int else value or None


class Port(Model):
    """A port to publish: container port `target`, host port or range `published` (None: any)."""

    name: str = ""
    mode: str = "ingress"
    host_ip: str | None = None
    target: Unsigned = 0
    published: Annotated[str | None, BeforeValidator(_published)] = None
    protocol: str = "tcp"
    app_protocol: str = ""


class ServiceNetwork(Model):
    """A service's place on a network; `priority` orders connection, highest first."""

    aliases: tuple[str, ...] = ()
    driver_opts: TextMap = {}
    gw_priority: Integer = 0
    interface_name: str = ""
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    priority: Integer = 0


def _read_networks(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: {} if place is None else place for name, place in value.items()}
    return value


class EnvFile(Model):
    """A file of environment variables; `format` is empty (the dotenv dialect) or `raw`."""

    path: str = ""
    required: Flag = True
    format: str = ""


class DeviceMapping(Model):
    """A host device and where the container sees it; permissions of r, w, m."""

    source: str = ""
    target: str = ""
    permissions: str = ""


class WeightDevice(Model):
    """Block I/O weight (10 to 1000) of one device."""

    path: str = ""
    weight: Unsigned = 0


class ThrottleDevice(Model):
    """A limit for one device: bytes or operations a second."""

    path: str = ""
    rate: Bytes = 0


class BlkioConfig(Model):
    """Block I/O weights and limits."""

    weight: Unsigned = 0
    weight_device: tuple[WeightDevice, ...] = ()
    device_read_bps: tuple[ThrottleDevice, ...] = ()
    device_read_iops: tuple[ThrottleDevice, ...] = ()
    device_write_bps: tuple[ThrottleDevice, ...] = ()
    device_write_iops: tuple[ThrottleDevice, ...] = ()


class Logging(Model):
    """Where a container's output goes."""

    driver: str = ""
    options: TextMap = {}


class CredentialSpec(Model):
    """Credentials of a managed Windows account."""

    config: str = ""
    file: str = ""
    registry: str = ""


def _read_options(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: tuple(_option(item) for item in (value_ if type(value_) is list else [value_]))
            if type(value_) is not tuple
            else value_
            for key, value_ in value.items()
        }
    return value


def _option(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if value is not None else ""


class Provider(Model):
    """A program that provides the service in place of a container."""

    type: str = ""
    options: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_read_options)] = {}


class ServiceModel(Model):
    """The variables through which a service learns of a model."""

    endpoint_var: str = ""
    model_var: str = ""


class Extends(Model):
    """The service that this one builds on; resolved by the loader."""

    file: str = ""
    service: str = ""


class Service(Model):
    """One service. Times in nanoseconds, sizes in bytes, paths absolute.

    `environment` is complete (env files read, bare keys looked up); `unset_environment` names
    the bare keys that had no value, which a container must not inherit from its image.
    `restart` is no, always, on-failure[:N] or unless-stopped. `scale` None means 1.
    """

    profiles: tuple[str, ...] = ()
    deploy: Deploy | None = None
    develop: Develop | None = None
    extends: Extends | None = None
    restart: str = ""
    scale: Integer | None = None
    attach: Flag | None = None
    container_name: str = ""
    external_links: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    mac_address: str = ""
    network_mode: str = ""
    provider: Provider | None = None
    pre_start: tuple[InitHook, ...] = ()
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    annotations: TextMap = {}
    blkio_config: BlkioConfig | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cgroup_parent: str = ""
    cgroup: str = ""
    cpu_count: Integer = 0
    cpu_percent: Number = 0
    cpu_period: Integer = 0
    cpu_quota: Integer = 0
    cpu_rt_period: Integer = 0
    cpu_rt_runtime: Integer = 0
    cpus: Number = 0
    cpuset: str = ""
    cpu_shares: Integer = 0
    command: Command | None = None
    configs: tuple[FileReference, ...] = ()
    credential_spec: CredentialSpec | None = None
    device_cgroup_rules: tuple[str, ...] = ()
    devices: tuple[DeviceMapping, ...] = ()
    dns: Texts = ()
    dns_opt: tuple[str, ...] = ()
    dns_search: Texts = ()
    domainname: str = ""
    entrypoint: Command | None = None
    environment: dict[str, str] = {}
    unset_environment: tuple[str, ...] = ()
    env_file: tuple[EnvFile, ...] = ()
    extra_hosts: Hosts = {}
    group_add: Texts = ()
    gpus: tuple[DeviceRequest, ...] = ()
    hostname: str = ""
    image: str = ""
    init: Flag | None = None
    ipc: str = ""
    isolation: str = ""
    labels: TextMap = {}
    label_file: Texts = ()
    logging: Logging | None = None
    mem_limit: Bytes = 0
    mem_reservation: Bytes = 0
    memswap_limit: Bytes = 0
    mem_swappiness: Bytes | None = None
    models: dict[str, ServiceModel | None] = {}
    networks: Annotated[dict[str, ServiceNetwork], BeforeValidator(_read_networks)] = {}
    oom_kill_disable: Flag = False
    oom_score_adj: Integer = 0
    pid: NullableText = ""
    pids_limit: Integer = 0
    platform: str = ""
    privileged: Flag = False
    pull_policy: str = ""
    pull_refresh_after: str = ""
    read_only: Flag = False
    runtime: str = ""
    secrets: tuple[FileReference, ...] = ()
    security_opt: tuple[str, ...] = ()
    shm_size: Bytes = 0
    stop_grace_period: Nanoseconds | None = None
    stop_signal: str = ""
    storage_opt: TextMap = {}
    sysctls: TextMap = {}
    tmpfs: Texts = ()
    ulimits: dict[str, Ulimit] = {}
    use_api_socket: Flag = False
    user: Text = ""
    userns_mode: str = ""
    uts: str = ""
    volumes: tuple[ServiceVolume, ...] = ()
    volumes_from: tuple[str, ...] = ()
    working_dir: str = ""
    build: Build | None = None
    depends_on: dict[str, Dependency] = {}
    expose: Texts = ()
    healthcheck: Healthcheck | None = None
    ports: tuple[Port, ...] = ()
    stdin_open: Flag = False
    tty: Flag = False

    @property
    def replicas(self) -> int:
        """How many containers the service has."""
        if self.scale is not None:
            return self.scale
        if self.deploy is not None and self.deploy.replicas is not None:
            return self.deploy.replicas
        return 1
