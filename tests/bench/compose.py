"""Measures whole stacks beside docker compose: `up`, `ps`, `down`, and the engines' memory.

Run as root; `make bench` does. Both programs get a daemon of their own, docker's as it comes
but for the default bridge, in one network namespace that ends with this run. Both import the
same busybox; the services trap SIGTERM, so that `stop` waits for nothing. Runs alternate, so
that a noisy machine is noisy for both. Times are medians of wall clock in milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

_BUSYBOX = Path("/bin/busybox")
_IMAGE = "bench:1"
_INSIDE = "--inside"  # the argument that tells that the namespace is there
_COMMAND = ["/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; /bin/busybox sleep 86400 & wait"]
_SIZES = (10, 30)
_LOOKS = 3  # how often each round repeats what changes nothing
_GROWTH = (100, 250, 500)
_PATIENCE = 60.0

# What is aimed at, as a share of docker compose's time.
_SHARES = {
    "up -d, 10 services": 0.10,
    "up -d, 30 services": 0.10,
    "up -d again (30)": 1.0,
    "up -d again (30), a healthy dependency": 0.15,
    "ps (30)": 1.0,
    "down, 10 services": 0.20,
    "down, 30 services": 0.20,
}
_MEMORY = 80.0  # MB, the whole engine beside 30 containers


def stack(services: int, *, healthy: bool = False) -> str:
    """A project of `services` services, which all wait for the first one's health with
    `healthy`."""
    described: dict[str, dict[str, Any]] = {
        f"s{number}": {"image": _IMAGE, "command": _COMMAND} for number in range(services)
    }
    if healthy:
        first, *others = described.values()
        first["healthcheck"] = {"test": ["CMD", "/bin/busybox", "true"], "interval": "1s"}
        for service in others:
            service["depends_on"] = {"s0": {"condition": "service_healthy"}}
    project: dict[str, Any] = {"services": described}
    project["name"] = f"bench{services}{'h' if healthy else ''}"
    return json.dumps(project)


class Program(Protocol):
    """One of the two that are compared."""

    name: str

    def run(self, *words: str, cwd: Path) -> None:
        """Run a Compose command."""

    def processes(self) -> Sequence[int]:
        """The pids of all that the engine keeps running for its containers."""


def _run(words: Sequence[str], *, cwd: Path, environ: dict[str, str], ok: Sequence[int]) -> None:
    done = subprocess.run(words, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    if done.returncode not in ok:
        told = "\n".join([*done.stdout.splitlines(), *done.stderr.splitlines()][-20:])
        raise SystemExit(f"{' '.join(words)}: status {done.returncode}\n{told}")


class Bay:
    """`bay` with state of its own."""

    name = "bay"

    def __init__(self, place: Path, archive: Path) -> None:
        self._root = place / "root"
        program = str(Path(sys.executable).with_name("bay"))
        self._command = [program, "--root", str(self._root), "--run", str(place / "run")]
        # Compiled modules are read either way; what matters is that they can be written once.
        self._environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self.run("image", "import", str(archive), _IMAGE, cwd=place)
        self.run("ls", cwd=place)  # starts the daemon; dockerd is waited for, too

    def run(self, *words: str, cwd: Path) -> None:
        ok = (0, 2) if words[0] == "plan" else (0,)
        _run([*self._command, *words], cwd=cwd, environ=self._environ, ok=ok)

    def processes(self) -> Sequence[int]:
        daemon = int((self._root / "daemon.lock").read_text().split()[0])
        named = f"bay: launcher of {self._root}".encode()
        launcher = next(pid for pid in _pids() if _cmdline(pid).startswith(named))
        return [daemon, launcher, *(pid for pid in _pids() if _parent(pid) == launcher)]

    def close(self) -> None:
        self.run("daemon", "stop", cwd=Path("/"))


class Docker:
    """`docker compose` with a dockerd of its own."""

    name = "docker compose"

    def __init__(self, place: Path, archive: Path) -> None:
        self._compose = str(Path(sys.executable).with_name("docker-compose"))
        self._socket = f"unix://{place}/docker.sock"
        self._containerd = f"{place}/exec/containerd/containerd.sock"
        self._environ = {**os.environ, "DOCKER_HOST": self._socket}
        self._group = f"bay-bench-{os.getpid()}"
        words = ["--data-root", f"{place}/data", "--exec-root", f"{place}/exec"]
        words += ["--host", self._socket, "--pidfile", f"{place}/pid"]
        words += ["--cgroup-parent", f"/{self._group}"]
        words += ["--bridge=none"]
        with open(place / "dockerd.log", "wb") as log:
            self._daemon = subprocess.Popen(["dockerd", *words], stdout=log, stderr=log)
        _await(self._answers, f"dockerd (see {log.name})")
        self._docker("import", str(archive), _IMAGE)

    def run(self, *words: str, cwd: Path) -> None:
        _run([self._compose, *words], cwd=cwd, environ=self._environ, ok=(0,))

    def processes(self) -> Sequence[int]:
        shims = (p for p in _pids() if self._containerd.encode() in _cmdline(p).split(b"\0"))
        daemon = self._daemon.pid
        return [daemon, *(pid for pid in _pids() if _parent(pid) == daemon), *shims]

    def close(self) -> None:
        """End dockerd, which ends its containerd, and remove the control groups."""
        self._daemon.terminate()
        self._daemon.wait()
        for group in Path("/sys/fs/cgroup").glob(f"*/{self._group}"):
            group.rmdir()

    def _answers(self) -> bool:
        if self._daemon.poll() is not None:
            raise SystemExit("dockerd has ended")
        words = ["docker", "--host", self._socket, "version"]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def _docker(self, *words: str) -> None:
        words = ("docker", "--host", self._socket, *words)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {what} does not come up")
        time.sleep(0.05)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _pss(pid: int) -> float:
    """The proportional share of the memory that a process holds, in MB (1000 kB)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


@dataclass(slots=True)
class Figures:
    """What was measured: title -> program -> every figure."""

    taken: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, title: str, program: Program, figure: float) -> None:
        self.taken.setdefault(title, {}).setdefault(program.name, []).append(figure)

    @contextlib.contextmanager
    def timed(self, title: str, program: Program) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.add(title, program, (time.perf_counter() - started) * 1000)

    def median(self, title: str, name: str) -> float:
        return statistics.median(self.taken[title][name])


def _round(program: Program, place: Path, figures: Figures) -> None:
    """Everything once, on one side."""
    for size in _SIZES:
        directory = place / str(size)
        with figures.timed(f"up -d, {size} services", program):
            program.run("up", "-d", cwd=directory)
        if size == max(_SIZES):
            for _ in range(_LOOKS):
                with figures.timed(f"up -d again ({size})", program):
                    program.run("up", "-d", cwd=directory)
                with figures.timed(f"ps ({size})", program):
                    program.run("ps", cwd=directory)
            memory = sum(_pss(pid) for pid in program.processes())
            figures.add(f"memory beside {size} containers, MB", program, memory)
        with figures.timed(f"down, {size} services", program):
            program.run("down", cwd=directory)
    directory = place / "healthy"
    program.run("up", "-d", cwd=directory)
    for _ in range(_LOOKS):
        with figures.timed(f"up -d again ({max(_SIZES)}), a healthy dependency", program):
            program.run("up", "-d", cwd=directory)
    program.run("down", cwd=directory)


def _grow(bay: Bay, place: Path) -> None:
    """How `bay` fares with many services."""
    print(f"\n{'bay alone, ms':<30}{'plan':>8}{'again':>8}{'up -d':>9}{'a service':>11}", end="")
    print(f"{'up again':>10}{'ps':>7}{'down':>9}   engine MB")
    for size in _GROWTH:
        directory = place / f"growth{size}"
        directory.mkdir()
        (directory / "compose.yaml").write_text(stack(size))
        figures = Figures()
        for title, words, times in (
            ("plan", ("plan",), 1),
            ("again", ("plan",), _LOOKS),
            ("up", ("up", "-d"), 1),
            ("up again", ("up", "-d"), _LOOKS),
            ("ps", ("ps",), _LOOKS),
        ):
            for _ in range(times):
                with figures.timed(title, bay):
                    bay.run(*words, cwd=directory)
        memory = sum(_pss(pid) for pid in bay.processes())
        with figures.timed("down", bay):
            bay.run("down", cwd=directory)
        of = {title: figures.median(title, bay.name) for title in figures.taken}
        print(f"{f'{size} services':<30}{of['plan']:>8.0f}{of['again']:>8.0f}", end="")
        print(f"{of['up']:>9.0f}{of['up'] / size:>11.1f}{of['up again']:>10.0f}", end="")
        print(f"{of['ps']:>7.0f}{of['down']:>9.0f}{memory:>12.0f}")
    print(f"{'aimed at with 500':<30}{'≤ 1000':>8}{'':>8}{'':>9}{'as with 100':>11}", end="")
    print(f"{'':>10}{'≤ 300':>7}")


def _report(figures: Figures, rounds: int) -> None:
    print(f"{f'{rounds} rounds, load {os.getloadavg()[0]:.1f}':<42}", end="")
    print(f"{Bay.name:>9}{Docker.name:>17}{'ratio':>8}   goal")
    for title in figures.taken:
        ours, theirs = (figures.median(title, name) for name in (Bay.name, Docker.name))
        goal = f"≤ {_SHARES[title]:.2f}" if title in _SHARES else f"bay ≤ {_MEMORY:.0f}"
        print(f"{title:<42}{ours:>9.1f}{theirs:>17.1f}{ours / theirs:>8.3f}   {goal}")


def _archive(place: Path) -> Path:
    """A file system with nothing but busybox."""
    archive = place / "busybox.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("bin", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        content = _BUSYBOX.read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.mode, entry.size = 0o755, len(content)
        tar.addfile(entry, io.BytesIO(content))
    return archive


def _stacks(place: Path) -> None:
    for size in _SIZES:
        (place / str(size)).mkdir()
        (place / str(size) / "compose.yaml").write_text(stack(size))
    (place / "healthy").mkdir()
    (place / "healthy" / "compose.yaml").write_text(stack(max(_SIZES), healthy=True))


@contextlib.contextmanager
def _programs(place: Path, *, peer: bool) -> Iterator[tuple[Bay, list[Program]]]:
    archive = _archive(place)
    with contextlib.ExitStack() as stack_:
        (place / "bay").mkdir()
        bay = Bay(place / "bay", archive)
        stack_.callback(bay.close)
        programs: list[Program] = [bay]
        if peer:
            (place / "docker").mkdir()
            docker = Docker(place / "docker", archive)
            stack_.callback(docker.close)
            programs.append(docker)
        for program in programs:
            stack_.callback(_take_down, program, place)
        yield bay, programs


def _take_down(program: Program, place: Path) -> None:
    """Leave no container, also where the run was cut short."""
    for directory in place.iterdir():
        if (directory / "compose.yaml").exists():
            program.run("down", cwd=directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-growth", action="store_true", help="leave out the large projects")
    parser.add_argument("--no-compose", action="store_true", help="leave out the comparison")
    parser.add_argument(_INSIDE, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if os.geteuid() != 0 or not _BUSYBOX.exists():
        raise SystemExit("bench: needs root, and busybox-static at /bin/busybox")
    if not given.inside:
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv, _INSIDE])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if not given.no_compose and not shutil.which("dockerd"):
        raise SystemExit("bench: needs docker.io, for a dockerd of its own")
    with tempfile.TemporaryDirectory(prefix="bay-bench-", dir="/var/tmp") as name:
        place = Path(name)
        _stacks(place)
        with _programs(place, peer=not given.no_compose) as (bay, programs):
            figures = Figures()
            if len(programs) > 1:
                for program in programs:
                    _round(program, place, Figures())  # programs and image are read once
                for _ in range(given.rounds):
                    for program in programs:
                        _round(program, place, figures)
                _report(figures, given.rounds)
            if not given.no_growth:
                _grow(bay, place)


if __name__ == "__main__":
    main()
