"""What to run: a frozen description of one container, and of one exec in it.

The description is complete: paths are absolute host paths or absolute paths inside
the container, names of users are resolved inside the container's own root, and
nothing is read from the environment of whoever starts it. It travels to the
launcher as JSON (`to_json`), and lies beside the container as `config.json`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Propagation = Literal["rprivate", "private", "rslave", "slave", "rshared", "shared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A bind mount of a host file or directory (volumes are binds of their `_data`).

    `recursive` takes the mounts below `source` too; `read_only` then holds for all of them.
    `seed` marks a volume that is to be filled from the image's content at `target` when empty.
    `beneath` is a directory that no link on the way to `source` may lead out of: containers can
    write there.
    """

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    propagation: Propagation = "rprivate"
    create_source: bool = False
    seed: bool = False
    beneath: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMount:
    """An image's files at `target`, read-only: its unpacked `layers`, lowest first, or what they
    have at `subpath` together (empty: all of it)."""

    layers: tuple[str, ...]
    target: str
    subpath: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs:
    """An in-memory file system; `size` in bytes (None: half of the memory), `mode` octal bits."""

    target: str
    size: int | None = None
    mode: int = 0o1777
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A small file that the runtime itself provides (hosts, resolv.conf, secrets in memory).

    It is written below the container's own directory, or to memory where `secret`,
    and bind-mounted over `target`. The content of a secret is never part of `config.json`: it
    is empty in what is read from there.
    """

    target: str
    content: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node of the host; `permissions` is a subset of "rwm"."""

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """A resource limit by its Compose name (`nofile`); -1 is unlimited (getrlimit(2))."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IoLimit:
    """Limits of one block device, named by its path on the host: bytes and operations a second,
    `weight` 10–1000; None is none."""

    path: str
    weight: int | None = None
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Cgroup limits; None leaves the kernel's default.

    `memory`, `memory_swap` (memory plus swap, -1 unlimited) and `memory_reservation` in bytes;
    `cpus` in cores; `cpu_shares` is the v1 weight (2–262144); `cpu_quota` and `cpu_period` in µs;
    `cpuset` a list such as "0-1"; `pids` a number of tasks; `blkio_weight` 10–1000; `cpu_rt_*`
    the real-time processes' part in µs, where the host has that.
    """

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    memory_swappiness: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpuset: str | None = None
    pids: int | None = None
    blkio_weight: int | None = None
    io: tuple[IoLimit, ...] = ()
    cpu_rt_period: int | None = None
    cpu_rt_runtime: int | None = None
    oom_kill_disable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How output is kept: JSON lines, `max_size` bytes a file, `max_files` files (the live one
    included); `none` keeps nothing."""

    driver: Literal["json-file", "none"] = "json-file"
    max_size: int = 20 * 1024 * 1024
    max_files: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """One container.

    `layers` are the image's unpacked layers, lowest first; `netns` is the path of a network
    namespace, None the host's own; `pid_namespace`, `ipc_namespace` and `uts_namespace` are
    "private", "host" or the path of a namespace; the first two also "container:<id>", which is
    looked up at each start. `user` is Docker's `name|uid[:group|gid]`.
    `stop_signal` is a signal number, `stop_timeout` in seconds (-1: wait for ever).
    `upper` and `work` replace the container's own writable layer (a build step's result);
    `volatile` lets the kernel skip every sync of that layer, which is then lost with a crash.
    `gate` is the path of a gate that a start waits at before it mounts the root: `layers` and
    `upper` need to be there only then (`runtime.container.gate`).
    `await_attach` keeps the output, and the end, for the first client to attach, a few seconds
    long. `terminal_size` is in rows and columns. Containers of one `group` may share the process
    that keeps them.
    """

    id: str
    layers: tuple[str, ...]
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    additional_groups: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    netns: str | None = None
    pid_namespace: str = "private"
    ipc_namespace: str = "private"
    uts_namespace: str = "private"
    cgroup_namespace: str = "private"
    mounts: tuple[Mount, ...] = ()
    images: tuple[ImageMount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    files: tuple[File, ...] = ()
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    read_only: bool = False
    shm_size: int = 64 * 1024 * 1024
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: Literal["default", "unconfined"] = "default"
    masked_paths: bool = True
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int | None = None
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    resources: Resources = Resources()
    cgroup_parent: str | None = None
    stop_signal: int = 15
    stop_timeout: int = 10
    log: LogConfig = LogConfig()
    labels: Mapping[str, str] = field(default_factory=dict)
    upper: str | None = None
    work: str | None = None
    volatile: bool = False
    gate: str | None = None
    await_attach: bool = False
    terminal_size: tuple[int, int] | None = None
    group: str = ""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote; raises ValueError or TypeError on anything else."""
        return cls(**_typed(json.loads(text)))

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecConfig:
    """A further process in a running container; None takes the container's own value.

    `env` is added to the container's environment, later entries win. With `detach` its output
    goes nowhere and nobody is given an end of it.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str | None = None
    user: str | None = None
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    detach: bool = False
    rows: int = 24
    columns: int = 80


_NESTED: dict[str, type] = {
    "mounts": Mount,
    "tmpfs": Tmpfs,
    "files": File,
    "devices": Device,
    "ulimits": Ulimit,
}


def _typed(raw: dict[str, Any]) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for name, value in raw.items():
        if name in _NESTED:
            typed[name] = tuple(_NESTED[name](**item) for item in value)
        elif name == "images":
            typed[name] = tuple(
                ImageMount(**{**item, "layers": tuple(item["layers"])}) for item in value
            )
        elif name == "resources":
            io = tuple(IoLimit(**item) for item in value.get("io") or ())
            typed[name] = Resources(**{**value, "io": io})
        elif name == "log":
            typed[name] = LogConfig(**value)
        elif isinstance(value, list):
            typed[name] = tuple(value)
        else:
            typed[name] = value
    return typed
