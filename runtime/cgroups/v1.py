"""Control groups v1: one directory a controller (Documentation/admin-guide/cgroup-v1).

Where a v2 tree is mounted as well, the container has a group there too: it has no
controllers but it can be killed and watched as one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from runtime.cgroups import limits
from runtime.cgroups.devices import EVERYTHING, DeviceRule
from runtime.cgroups.manager import (
    Hierarchies,
    Usage,
    pids_in,
    read_pairs,
    remove_all,
    write,
)
from runtime.cgroups.realtime import grant
from runtime.container.config import Resources
from runtime.errors import RuntimeFault
from runtime.linux.files import read_small

_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "devices", "freezer", "blkio")
_UNLIMITED = 1 << 60


class CgroupV1:
    def __init__(self, found: Hierarchies, parent: str, name: str) -> None:
        self._roots = found.v1
        self._unified_root = found.unified
        self._place = f"{parent}/{name}"

    @functools.cached_property
    def _unified(self) -> Path | None:
        return self._unified_root / self._place if self._unified_root else None

    @functools.cached_property
    def _controllers(self) -> dict[str, Path]:
        return {
            controller: self._roots[controller] / self._place
            for controller in _CONTROLLERS
            if controller in self._roots
        }

    def create(self, resources: Resources, devices: Sequence[DeviceRule]) -> None:
        for directory in self._directories():
            directory.mkdir(parents=True, exist_ok=True)
        if resources.cpuset:
            self._create_cpuset()
        self.update(resources)
        if "devices" in self._controllers and tuple(devices) != EVERYTHING:
            directory = self._controllers["devices"]
            write(directory / "devices.deny", "a")
            for rule in devices:
                write(directory / "devices.allow", str(rule))

    def open(self) -> int | None:
        if self._unified is None:
            return None
        return os.open(self._unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def join(self) -> None:
        directories = list(dict.fromkeys(self._controllers.values()))
        if "cpuset" in self._roots and (cpuset := self._roots["cpuset"] / self._place).exists():
            directories.append(cpuset)
        for directory in directories:
            # Unlike cgroup.procs this takes no lock that waits for an RCU grace period.
            write(directory / "tasks", "0")

    def update(self, resources: Resources, before: Resources | None = None) -> None:
        for controller, file, value in limits.v1_files(resources, before or Resources()):
            root = self._roots.get(controller)
            if root is None:
                raise RuntimeFault(f"this host has no {controller} controller for {file}")
            path = root / self._place / file
            if not path.exists():
                if file == "memory.memsw.limit_in_bytes":
                    continue  # a kernel without swap accounting has nothing to limit
                raise RuntimeFault(f"this host's {controller} controller has no {file}")
            if file == "memory.limit_in_bytes":
                self._make_room(path.parent, int(value))
            elif file == "cpu.rt_runtime_us":
                grant(root, Path(self._place), int(value))
            if value == limits.INHERIT:
                value = (path.parent.parent / file).read_text().strip()
            write(path, value)

    def _make_room(self, memory: Path, limit: int) -> None:
        """memory.memsw must never be below memory, so a growing limit lifts it first."""
        total = memory / "memory.memsw.limit_in_bytes"
        with contextlib.suppress(FileNotFoundError):
            if int(total.read_text()) < limit:
                write(total, str(limit))

    def freeze(self, frozen: bool) -> None:
        write(self._controllers["freezer"] / "freezer.state", "FROZEN" if frozen else "THAWED")

    def frozen(self) -> bool:
        try:
            state = read_small(f"{self._roots['freezer']}/{self._place}/freezer.state")
        except (OSError, KeyError):
            return False  # it is gone, or (ENODEV) going
        return state.strip() != b"THAWED"

    def kill(self) -> None:
        if self._unified is not None and (self._unified / "cgroup.kill").exists():
            write(self._unified / "cgroup.kill", "1")
        else:
            with contextlib.suppress(RuntimeFault, KeyError):
                self.freeze(True)  # so that nothing forks away from us
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        # A frozen process dies only once it is thawed (freezer-subsystem.rst).
        with contextlib.suppress(RuntimeFault, KeyError):
            self.freeze(False)

    def processes(self) -> list[int]:
        return pids_in(self._directories()[0] / "cgroup.procs")

    def oom_kills(self) -> int:
        if "memory" not in self._controllers:
            return 0
        try:
            return read_pairs(self._controllers["memory"] / "memory.oom_control").get("oom_kill", 0)
        except OSError:
            return 0

    def usage(self) -> Usage:
        memory = self._controllers["memory"]
        limit = int((memory / "memory.limit_in_bytes").read_text())
        io = read_pairs(self._controllers["blkio"] / "blkio.throttle.io_service_bytes")
        return Usage(
            cpu=int((self._controllers["cpuacct"] / "cpuacct.usage").read_text()),
            memory=int((memory / "memory.usage_in_bytes").read_text()),
            cache=read_pairs(memory / "memory.stat").get("total_inactive_file", 0),
            memory_limit=limit if limit < _UNLIMITED else None,
            tasks=int((self._controllers["pids"] / "pids.current").read_text()),
            read=sum(value for key, value in io.items() if key.endswith("Read")),
            written=sum(value for key, value in io.items() if key.endswith("Write")),
        )

    def remove(self) -> None:
        directories = self._directories()
        if "cpuset" in self._roots:
            directories.append(self._roots["cpuset"] / self._place)
        remove_all(directories)

    def _directories(self) -> list[Path]:
        unified = [self._unified] if self._unified is not None else []
        # Controllers may share one mount ("cpu,cpuacct").
        return list(dict.fromkeys([*self._controllers.values(), *unified]))

    def _create_cpuset(self) -> None:
        """A cpuset group is unusable until it has CPUs and memory nodes, from the top down."""
        root = self._roots.get("cpuset")
        if root is None:
            raise RuntimeFault("this host has no cpuset controller")
        above = root
        for part in Path(self._place).parts:
            below = above / part
            below.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):
                if not (below / file).read_text().strip():
                    write(below / file, (above / file).read_text().strip())
            above = below
