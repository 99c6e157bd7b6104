"""What is mounted in a container, as data: a pure list, in the order in which it is done."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.container import confinement
from runtime.container.config import ContainerConfig, Propagation
from runtime.container.paths import ContainerPaths
from runtime.linux import mounts

_SAFE = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC | mounts.MOUNT_ATTR_NODEV


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """The root: `layers` lowest first under a writable `upper` (overlayfs of the kernel); without
    one, two layers at least, and nothing can be written."""

    layers: tuple[str, ...]
    upper: str = ""
    work: str = ""
    volatile: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystem:
    """A fresh file system of `kind` at `target`; `strict` refuses a symbolic link there."""

    kind: str
    target: str
    options: tuple[tuple[str, str | None], ...] = ()
    attributes: int = 0
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """The host's `source` at `target`; where `beneath` is given, no link leads out of it."""

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    propagation: Propagation = "rprivate"
    attributes: int = 0
    beneath: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTree:
    """What an image's `layers` have together at `subpath`, read-only at `target`."""

    layers: tuple[str, ...]
    target: str
    subpath: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A device node below /dev: `kind` "c" or "b"."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A symbolic link below /dev."""

    path: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Hide `path`: nothing can be read there (absent paths are passed over)."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOnly:
    """Make `path` and all below read-only (absent paths are passed over)."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDevice:
    """A node at `target` for the device that the host has at `source`."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMemory:
    """The shared memory of another container, at `target`."""

    target: str


Operation = (
    SharedMemory | Filesystem | Bind | ImageTree | Node | Link | HostDevice | Mask | ReadOnly
)

_NODES = (
    Node(path="/dev/null", kind="c", major=1, minor=3),
    Node(path="/dev/zero", kind="c", major=1, minor=5),
    Node(path="/dev/full", kind="c", major=1, minor=7),
    Node(path="/dev/random", kind="c", major=1, minor=8),
    Node(path="/dev/urandom", kind="c", major=1, minor=9),
    Node(path="/dev/tty", kind="c", major=5, minor=0),
)
_LINKS = (
    Link(path="/dev/fd", to="/proc/self/fd"),
    Link(path="/dev/stdin", to="/proc/self/fd/0"),
    Link(path="/dev/stdout", to="/proc/self/fd/1"),
    Link(path="/dev/stderr", to="/proc/self/fd/2"),
    Link(path="/dev/ptmx", to="pts/ptmx"),
)


def root_overlay(config: ContainerConfig, paths: ContainerPaths) -> Overlay:
    """The root of the container that lives at `paths`."""
    return Overlay(
        layers=config.layers or (str(paths.empty),),
        upper=config.upper or str(paths.upper),
        work=config.work or str(paths.work),
        volatile=config.volatile,
    )


def mount_operations(
    config: ContainerConfig, provided: tuple[Bind | ImageTree, ...], *, share_memory: bool = False
) -> tuple[Operation, ...]:
    """Everything on top of the root, in order.

    `provided` is what the runtime provides itself (`provided` in `prepare`). A mount that the
    user asks for replaces the default one at the same place. With `share_memory` there is
    another container's /dev/shm.
    """
    wanted = _wanted(config, provided)
    taken = {mount.target for mount in wanted}
    operations: list[Operation] = []
    for system in _default_filesystems(config, share_memory=share_memory):
        if system.target not in taken and not _within(system.target, taken):
            operations.append(system)
    if "/dev" not in taken:
        operations += [*_NODES, *_LINKS]
    operations += [
        HostDevice(source=device.source, target=normal_target(device.target))
        for device in config.devices
    ]
    wanted.sort(key=lambda mount: _depth(mount.target))
    operations += wanted
    if config.masked_paths and not config.privileged:
        operations += [
            Mask(path=path)
            for path in (*confinement.MASKED_PATHS, *confinement.thermal_throttle_paths())
        ]
        operations += [ReadOnly(path=path) for path in confinement.READ_ONLY_PATHS]
    return tuple(operations)


def _default_filesystems(
    config: ContainerConfig, *, share_memory: bool
) -> tuple[Filesystem | Bind | SharedMemory, ...]:
    sys_access = 0 if config.privileged else mounts.MOUNT_ATTR_RDONLY
    shared_memory: Filesystem | Bind | SharedMemory = Filesystem(
        kind="tmpfs",
        target="/dev/shm",
        options=(("mode", "1777"), ("size", str(config.shm_size))),
        attributes=_SAFE,
    )
    # POSIX shared memory is files, which the ipc namespace does not cover (shm_overview(7)).
    if share_memory:
        shared_memory = SharedMemory(target="/dev/shm")
    elif config.ipc_namespace == "host":
        shared_memory = Bind(source="/dev/shm", target="/dev/shm", attributes=_SAFE)
    proc: tuple[tuple[str, str | None], ...] = ()
    if config.pid_namespace not in ("private", "host"):
        # It is mounted before the container's first process is in that namespace.
        proc = (("pidns", config.pid_namespace),)
    return (
        Filesystem(kind="proc", target="/proc", options=proc, attributes=_SAFE, strict=True),
        Filesystem(
            kind="tmpfs",
            target="/dev",
            options=(("mode", "755"), ("size", "65536k")),
            attributes=mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_STRICTATIME,
            strict=True,
        ),
        Filesystem(
            kind="devpts",
            target="/dev/pts",
            options=(("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")),
            attributes=mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC,
        ),
        Filesystem(kind="sysfs", target="/sys", attributes=_SAFE | sys_access, strict=True),
        Filesystem(kind="cgroup", target="/sys/fs/cgroup", attributes=_SAFE | sys_access),
        Filesystem(kind="mqueue", target="/dev/mqueue", attributes=_SAFE),
        shared_memory,
    )


def _wanted(
    config: ContainerConfig, provided: tuple[Bind | ImageTree, ...]
) -> list[Filesystem | Bind | ImageTree]:
    wanted: list[Filesystem | Bind | ImageTree] = [
        Bind(
            source=mount.source,
            target=normal_target(mount.target),
            read_only=mount.read_only,
            recursive=mount.recursive,
            propagation=mount.propagation,
            beneath=mount.beneath,
        )
        for mount in config.mounts
    ]
    for tmpfs in config.tmpfs:
        options: list[tuple[str, str | None]] = [("mode", format(tmpfs.mode, "o"))]
        if tmpfs.size is not None:
            options.append(("size", str(tmpfs.size)))
        attributes = _SAFE | (mounts.MOUNT_ATTR_RDONLY if tmpfs.read_only else 0)
        wanted.append(
            Filesystem(
                kind="tmpfs",
                target=normal_target(tmpfs.target),
                options=tuple(options),
                attributes=attributes,
            )
        )
    wanted += provided
    # The first one at a place counts: what the user asks for before what the runtime provides.
    return list({operation.target: operation for operation in reversed(wanted)}.values())


def _within(target: str, taken: set[str]) -> bool:
    """Whether a user's mount covers the place of a default mount below it (/dev over /dev/shm)."""
    return any(place != "/" and target.startswith(place + "/") for place in taken)


def normal_target(target: str) -> str:
    """One spelling for each place; `..` stays and is refused when it is looked up."""
    return "/" + "/".join(part for part in target.split("/") if part not in ("", "."))


def _depth(target: str) -> tuple[int, str]:
    parts = [part for part in target.split("/") if part]
    return len(parts), target
