"""All of a start that can be worked out before the fork."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from runtime.cgroups.devices import DeviceRule, device_rules
from runtime.container import confinement
from runtime.container.config import ContainerConfig, Device
from runtime.container.init import Confinement, Preparation
from runtime.container.paths import ContainerPaths
from runtime.container.rootfs import (
    Bind,
    ImageTree,
    mount_operations,
    normal_target,
    root_overlay,
)
from runtime.errors import RuntimeFault
from runtime.linux import capabilities

_OWN_DIRECTORIES = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd")
_OWN_NODES = ("/dev/console", "/dev/ptmx")
_IPC_SYSCTLS = {
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
    "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}  # fmt: skip


@functools.cache
def last_capability() -> int:
    return capabilities.last_capability()


@functools.cache
def available() -> int:
    """The runtime's own capabilities, as bits."""
    return capabilities.effective()


@functools.lru_cache(maxsize=64)
def held_capabilities(
    add: tuple[str, ...], drop: tuple[str, ...], *, privileged: bool
) -> tuple[str, ...]:
    return confinement.held_capabilities(add, drop, privileged=privileged, available=available())


@functools.lru_cache(maxsize=64)
def seccomp_program(held: tuple[str, ...], cache: Path) -> bytes:
    return confinement.seccomp_program(held, cache)


def prepare(
    config: ContainerConfig, paths: ContainerPaths, cache: Path, shared_memory: int | None = None
) -> Preparation:
    """Raises RuntimeFault for capabilities, devices or filters that cannot be had.

    `shared_memory` is a detached mount of another container's /dev/shm.
    """
    check_sysctls(config)
    config = config.replace(devices=expand_devices(config))
    return Preparation(
        config=config,
        overlay=root_overlay(config, paths),
        operations=mount_operations(
            config, provided(config, paths), share_memory=shared_memory is not None
        ),
        shared_memory=shared_memory,
        place=str(paths.place),
        secrets_place=str(paths.secrets),
        confinement=confine(config, cache),
    )


def confine(config: ContainerConfig, cache: Path) -> Confinement:
    """Raises RuntimeFault for capabilities or filters that cannot be had."""
    held = held_capabilities(config.cap_add, config.cap_drop, privileged=config.privileged)
    confined = config.seccomp == "default" and not config.privileged
    return Confinement(
        capabilities=tuple(capabilities.NUMBERS[name] for name in held),
        last_capability=last_capability(),
        no_new_privileges=config.no_new_privileges,
        seccomp=seccomp_program(held, cache) if confined else None,
    )


def file_binds(config: ContainerConfig, paths: ContainerPaths) -> tuple[Bind, ...]:
    """The binds of the files that the runtime keeps beside the container."""
    return tuple(
        Bind(source=str(paths.files / str(number)), target=file.target, recursive=False)
        for number, file in enumerate(config.files)
        if not file.secret
    )


def image_trees(config: ContainerConfig, paths: ContainerPaths) -> tuple[ImageTree, ...]:
    """The images that are mounted; under their layers lies an empty one, and over that of an
    image without any another, as an overlay that nothing writes to must have two."""
    return tuple(
        ImageTree(
            layers=(str(paths.empty), *(image.layers or (str(paths.secrets),))),
            target=normal_target(image.target),
            subpath=image.subpath,
        )
        for image in config.images
    )


def provided(config: ContainerConfig, paths: ContainerPaths) -> tuple[Bind | ImageTree, ...]:
    """What is mounted of the runtime's own: images, and the files beside the container."""
    return (*image_trees(config, paths), *file_binds(config, paths))


def rules(config: ContainerConfig) -> tuple[DeviceRule, ...]:
    return device_rules(
        expand_devices(config), config.device_cgroup_rules, privileged=config.privileged
    )


def expand_devices(config: ContainerConfig) -> tuple[Device, ...]:
    """Each node below a directory that is given as a device; all of the host's if privileged.

    Raises RuntimeFault for a device that is not there.
    """
    devices = list(config.devices)
    if config.privileged:
        devices.append(Device(source="/dev", target="/dev"))
    expanded: dict[str, Device] = {}
    for device in devices:
        for node in _nodes_below(device) if os.path.isdir(device.source) else (device,):
            expanded.setdefault(node.target, node)
    return tuple(expanded.values())


def _nodes_below(directory: Device) -> Iterator[Device]:
    for place, names, files in os.walk(directory.source):
        # What is a file system of its own in each container.
        names[:] = [name for name in names if os.path.join(place, name) not in _OWN_DIRECTORIES]
        for name in files:
            source = os.path.join(place, name)
            mode = os.lstat(source).st_mode
            if source not in _OWN_NODES and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
                target = directory.target.rstrip("/") + source[len(directory.source.rstrip("/")) :]
                yield Device(source=source, target=target, permissions=directory.permissions)


def check_sysctls(config: ContainerConfig) -> None:
    """Raises RuntimeFault for a setting that belongs to the host and not to a namespace that the
    container has for itself (sysctl(8); the same ones as in Docker)."""
    for name in config.sysctls:
        key = name.replace("/", ".")
        if key in _IPC_SYSCTLS or key.startswith("fs.mqueue."):
            own = config.ipc_namespace == "private"
        elif key.startswith("net."):
            own = config.netns is not None
        else:
            own = False
        if not own or "" in key.split("."):
            raise RuntimeFault(
                f"sysctl {name} is not the container's own to set",
                hint="net.* needs a network of its own, kernel.msg*, kernel.sem, kernel.shm* and"
                " fs.mqueue.* a private ipc namespace",
            )
