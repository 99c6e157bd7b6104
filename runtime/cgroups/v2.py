"""Control groups v2 (Documentation/admin-guide/cgroup-v2.rst of the kernel)."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from runtime.cgroups import limits
from runtime.cgroups.devices import EVERYTHING, DeviceRule, bpf_program
from runtime.cgroups.manager import Usage, pids_in, read_pairs, remove_all, write
from runtime.container.config import Resources
from runtime.errors import RuntimeFault
from runtime.linux import bpf
from runtime.linux.files import read_small

_WANTED = ("cpu", "memory", "pids", "io", "cpuset")


class CgroupV2:
    def __init__(self, root: Path, parent: str, name: str) -> None:
        self._root = root
        self._parent = Path(parent)
        self._directory = root / parent / name

    def create(self, resources: Resources, devices: Sequence[DeviceRule]) -> None:
        above = self._root
        self._pass_down(above)
        for part in self._parent.parts:
            above = above / part
            above.mkdir(exist_ok=True)
            self._pass_down(above)
        self._directory.mkdir(exist_ok=True)
        self.update(resources)
        if tuple(devices) != EVERYTHING:
            fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                bpf.attach_device_program(bpf_program(devices), fd)
            except OSError as error:
                raise RuntimeFault(
                    "limit the container's devices",
                    hint="the kernel needs CONFIG_CGROUP_BPF",
                ) from error
            finally:
                os.close(fd)

    def _pass_down(self, directory: Path) -> None:
        """Hand the controllers that we use to the groups below `directory`."""
        there = (directory / "cgroup.controllers").read_text().split()
        passed = (directory / "cgroup.subtree_control").read_text().split()
        missing = [name for name in _WANTED if name in there and name not in passed]
        if missing:
            write(directory / "cgroup.subtree_control", " ".join(f"+{name}" for name in missing))

    def open(self) -> int | None:
        return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def join(self) -> None:
        """Nothing is left to join."""

    def update(self, resources: Resources, before: Resources | None = None) -> None:
        for controller, file, value in limits.v2_files(resources, before or Resources()):
            path = self._directory / file
            if not path.exists():
                if file == "memory.swap.max":
                    continue  # a kernel without swap accounting has nothing to limit
                raise RuntimeFault(f"this host has no {controller} controller for {file}")
            write(path, value)

    def freeze(self, frozen: bool) -> None:
        write(self._directory / "cgroup.freeze", "1" if frozen else "0")

    def frozen(self) -> bool:
        try:
            return read_small(self._directory / "cgroup.freeze").strip() == b"1"
        except OSError:
            return False  # it is gone, or (ENODEV) going

    def kill(self) -> None:
        if (self._directory / "cgroup.kill").exists():
            write(self._directory / "cgroup.kill", "1")
            return
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        return pids_in(self._directory / "cgroup.procs")

    def oom_kills(self) -> int:
        try:
            return read_pairs(self._directory / "memory.events").get("oom_kill", 0)
        except OSError:
            return 0

    def usage(self) -> Usage:
        limit = (self._directory / "memory.max").read_text().strip()
        read = written = 0
        for line in (self._directory / "io.stat").read_text().splitlines():
            pairs = dict(item.split("=") for item in line.split()[1:])
            read += int(pairs.get("rbytes", 0))
            written += int(pairs.get("wbytes", 0))
        return Usage(
            cpu=read_pairs(self._directory / "cpu.stat")["usage_usec"] * 1000,
            memory=int((self._directory / "memory.current").read_text()),
            cache=read_pairs(self._directory / "memory.stat").get("inactive_file", 0),
            memory_limit=None if limit == "max" else int(limit),
            tasks=int((self._directory / "pids.current").read_text()),
            read=read,
            written=written,
        )

    def remove(self) -> None:
        remove_all([self._directory])
