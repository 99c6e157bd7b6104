"""The control group of one container, whatever version this host has.

On a host with v1 controllers (also beside a bare v2 tree) `CgroupV1` does the work, on a
v2-only host `CgroupV2`. `open_cgroup` chooses.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtime.cgroups.devices import DeviceRule
from runtime.container.config import Resources
from runtime.errors import RuntimeFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchies:
    """Where control groups are mounted: v1 by controller, v2 at `unified` (None: not at all)."""

    v1: dict[str, Path]
    unified: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counters of a running container: CPU time in ns, memory in bytes, number of tasks.

    `cache` is the part of `memory` that the kernel can take back (inactive file pages).
    """

    cpu: int
    memory: int
    cache: int
    memory_limit: int | None
    tasks: int
    read: int
    written: int


class Cgroup(Protocol):
    """One container's group; every call is idempotent."""

    def create(self, resources: Resources, devices: Sequence[DeviceRule]) -> None:
        """Make the group with its limits; raises RuntimeFault for a limit the kernel refuses."""

    def open(self) -> int | None:
        """A descriptor of the v2 group, to start processes in (`process.fork`); None without v2."""

    def join(self) -> None:
        """Move this process, which was started in the v2 group and has one thread, into the rest.

        A thread that moves itself needs no grace period, so this is cheap.
        """

    def update(self, resources: Resources, before: Resources | None = None) -> None:
        """Change the limits of a running container; those that `before` has and `resources` has
        not are lifted."""

    def freeze(self, frozen: bool) -> None: ...

    def frozen(self) -> bool: ...

    def kill(self) -> None:
        """SIGKILL every process of the group."""

    def processes(self) -> list[int]: ...

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for want of memory."""

    def usage(self) -> Usage: ...

    def remove(self) -> None:
        """Remove the emptied group; raises RuntimeFault when it stays populated."""


def read_hierarchies(mountinfo: str) -> Hierarchies:
    """Find the mounted hierarchies in the text of /proc/self/mountinfo (proc(5)).

    Where one is mounted twice the first counts.
    """
    v1: dict[str, Path] = {}
    unified: Path | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _source, options) = left.split(), right.split(" ", 2)
        if kind == "cgroup2" and unified is None:
            unified = Path(fields[4])
        elif kind == "cgroup":
            for option in options.strip().split(","):
                if option not in _FLAGS and not option.startswith("release_agent="):
                    v1.setdefault(option, Path(fields[4]))
    return Hierarchies(v1=v1, unified=unified)


# Options of a v1 mount that name no controller (cgroup1_show_options in the kernel).
_FLAGS = {"rw", "ro", "noprefix", "xattr", "cpuset_v2_mode", "clone_children", "favordynmods"}


@functools.cache
def hierarchies() -> Hierarchies:
    """The hierarchies of this host, read once."""
    return read_hierarchies(Path("/proc/self/mountinfo").read_text())


_NAME = "[a-zA-Z0-9_@:-][a-zA-Z0-9_.@:-]*"
_PARENT = re.compile(f"/?{_NAME}(?:/{_NAME})*/?")


def check_parent(parent: str) -> None:
    """Raises RuntimeFault for a parent group that is no plain path below the root."""
    if len(parent) > 1024 or not _PARENT.fullmatch(parent):
        raise RuntimeFault(
            f"cgroup parent {parent!r} is not valid",
            hint="names of letters, digits and _.@:- with slashes between them, below the root",
        )


def open_cgroup(parent: str, name: str) -> Cgroup:
    """The group `parent`/`name`, not made yet; `parent` is a path below the root."""
    check_parent(parent)
    parent = parent.strip("/")
    from runtime.cgroups.v1 import CgroupV1
    from runtime.cgroups.v2 import CgroupV2

    found = hierarchies()
    if "memory" in found.v1 or "cpu" in found.v1 or "pids" in found.v1:
        return CgroupV1(found, parent, name)
    if found.unified is None:
        raise RuntimeFault("no control groups are mounted", hint="mount cgroup2 on /sys/fs/cgroup")
    return CgroupV2(found.unified, parent, name)


def remove_parent(parent: str) -> None:
    """Remove the emptied group above all containers of an instance."""
    found = hierarchies()
    roots = {*found.v1.values(), *([found.unified] if found.unified else [])}
    for root in roots:
        with contextlib.suppress(FileNotFoundError):
            remove_directory(root / parent)


def write(path: Path, value: str) -> None:
    """Write one value into a control file; raises RuntimeFault that names limit and value."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise RuntimeFault(
            f"set {path.name} to {value}: {(error.strerror or '').lower()}"
        ) from error


def read_pairs(path: Path) -> dict[str, int]:
    """A flat-keyed control file ("key value" a line)."""
    pairs = {}
    for line in path.read_text().splitlines():
        key, _, value = line.rpartition(" ")
        if value.isdigit():
            pairs[key] = int(value)
    return pairs


def pids_in(path: Path) -> list[int]:
    try:
        return [int(line) for line in path.read_text().split()]
    except OSError:
        return []  # it is gone, or (ENODEV) going


def remove_directory(path: Path, *, tries: int = 100) -> None:
    """Remove a group; its last process may still be on its way out, for at most a second."""
    for attempt in range(tries):
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            if attempt == tries - 1:
                raise
            time.sleep(0.01)


def remove_all(paths: Iterable[Path]) -> None:
    failed = []
    for path in paths:
        try:
            remove_directory(path)
        except OSError as error:
            failed.append(f"{path}: {(error.strerror or '').lower()}")
    if failed:
        raise RuntimeFault(f"remove control group {'; '.join(failed)}")
