"""All of a start that can be worked out before the fork."""

from __future__ import annotations

import functools
from pathlib import Path

from runtime.cgroups.devices import DeviceRule, device_rules
from runtime.container import confinement
from runtime.container.config import ContainerConfig
from runtime.container.init import Preparation
from runtime.container.paths import ContainerPaths
from runtime.container.rootfs import Bind, mount_operations, root_overlay
from runtime.linux import capabilities


@functools.cache
def last_capability() -> int:
    return capabilities.last_capability()


@functools.lru_cache(maxsize=64)
def seccomp_program(held: tuple[str, ...], cache: Path) -> bytes:
    return confinement.seccomp_program(held, cache)


def prepare(config: ContainerConfig, paths: ContainerPaths, cache: Path) -> Preparation:
    """Raises RuntimeFault for capabilities, devices or filters that cannot be had."""
    held = confinement.held_capabilities(
        config.cap_add, config.cap_drop, privileged=config.privileged, last=last_capability()
    )
    confined = config.seccomp == "default" and not config.privileged
    return Preparation(
        config=config,
        overlay=root_overlay(config, str(paths.directory)),
        operations=mount_operations(config, file_binds(config, paths)),
        place=str(paths.place),
        secrets_place=str(paths.secrets),
        capabilities=tuple(capabilities.NUMBERS[name] for name in held),
        last_capability=last_capability(),
        seccomp=seccomp_program(held, cache) if confined else None,
    )


def file_binds(config: ContainerConfig, paths: ContainerPaths) -> tuple[Bind, ...]:
    """The binds of the files that the runtime keeps beside the container."""
    return tuple(
        Bind(source=str(paths.files / str(number)), target=file.target, recursive=False)
        for number, file in enumerate(config.files)
        if not file.secret
    )


def rules(config: ContainerConfig) -> tuple[DeviceRule, ...]:
    return device_rules(config.devices, config.device_cgroup_rules, privileged=config.privileged)
