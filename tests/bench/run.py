"""Measures what a person waits for: start-up, a container's start, an `up` with nothing to do.

`make bench` runs it as root; it uses an instance of its own, in a network namespace, and
removes both. Times are wall clock in milliseconds, over the number of runs that is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_BAY = Path(sys.executable).with_name("bay")
_BUSYBOX = Path("/bin/busybox")
_STACK = """
name: bench
services:
  one:
    build: .
    init: true
    stop_grace_period: 0s
"""
_THREE = """
name: three
services:
  store: {build: ., init: true, stop_grace_period: 0s, volumes: ["data:/data"]}
  web: {build: ., init: true, stop_grace_period: 0s, depends_on: [store], ports: ["8100:80"]}
  worker: {build: ., init: true, stop_grace_period: 0s, depends_on: [store]}
volumes: {data: {}}
"""
_DOCKERFILE = 'FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/bin/busybox", "sleep", "3600"]\n'


class Instance:
    """`bay` on a state directory of its own, inside a network namespace of its own."""

    def __init__(self, place: Path, netns: str) -> None:
        self._command = ["nsenter", f"--net=/run/netns/{netns}", str(_BAY)]
        self._command += ["--root", str(place / "root"), "--run", str(place / "run")]
        # Compiled modules are read either way; what matters is that they can be written once.
        self._environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def __call__(self, *args: str, cwd: Path | None = None, check: bool = True) -> str:
        """Run `bay`; gives its standard error, where the steps are told."""
        done = subprocess.run(
            [*self._command, *args],
            cwd=cwd,
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise SystemExit(f"bay {' '.join(args)}: status {done.returncode}\n{done.stderr}")
        return done.stderr


@contextlib.contextmanager
def _instance() -> Iterator[tuple[Instance, Path]]:
    name = f"bay_bench_{os.getpid()}"
    place = Path(tempfile.mkdtemp(prefix="bay-bench-", dir="/var/tmp"))
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        bay = Instance(place, name)
        try:
            yield bay, place
        finally:
            for project in ("bench", "three"):
                bay("-p", project, "down", "-v", "-t", "0", check=False)
            bay("daemon", "stop", check=False)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
        shutil.rmtree(place)


def _stack(place: Path, name: str, text: str) -> Path:
    directory = place / name
    directory.mkdir()
    (directory / "compose.yaml").write_text(text)
    (directory / "Dockerfile").write_text(_DOCKERFILE)
    shutil.copy(_BUSYBOX, directory / "busybox")
    return directory


def _measure(
    runs: int, measured: Callable[[], object], before: Callable[[], object] | None = None
) -> list[float]:
    times = []
    for _ in range(runs):
        if before is not None:
            before()
        start = time.perf_counter()
        measured()
        times.append((time.perf_counter() - start) * 1000)
    return sorted(times)


def _nsenter(bay: Instance) -> list[float]:
    """What the detour through the namespace costs, contained in every other figure."""
    program = [*bay._command[:2], sys.executable, "-I", "-c", ""]
    return _measure(20, lambda: subprocess.run(program, check=True))


def _starts(bay: Instance, directory: Path, runs: int) -> list[float]:
    """How long the daemon's step took that starts a container with its network."""
    times = []
    for _ in range(runs):
        bay("stop", "-t", "0", cwd=directory)
        told = bay("--progress", "json", "start", cwd=directory)
        steps = [event for event in map(json.loads, told.splitlines()) if event["type"] == "step"]
        times += [step["seconds"] * 1000 for step in steps if step["status"] == "done"]
    return sorted(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    if os.geteuid() != 0 or not _BUSYBOX.exists():
        raise SystemExit("bench: needs root, and busybox-static at /bin/busybox")
    rows: list[tuple[str, list[float], str]] = []
    with _instance() as (bay, place):
        one = _stack(place, "bench", _STACK)
        three = _stack(place, "three", _THREE)
        rows.append(("an interpreter that does nothing", _nsenter(bay), ""))
        bay("ls")
        rows.append(("bay version", _measure(runs, lambda: bay("version")), "50"))
        bay("up", "-d", cwd=three)
        rows.append(("bay ps (3 containers)", _measure(runs, lambda: bay("ps", cwd=three)), "50"))
        rows.append(
            ("up, nothing to do (3)", _measure(runs, lambda: bay("up", "-d", cwd=three)), "150")
        )
        bay("up", "-d", cwd=one)
        rows.append(("container start, in the daemon", _starts(bay, one, runs), "40"))
        rows.append(
            (
                "bay start of a stopped container",
                _measure(
                    runs,
                    lambda: bay("start", cwd=one),
                    lambda: bay("stop", "-t", "0", cwd=one),
                ),
                "",
            )
        )
        rows.append(
            (
                "up of one service",
                _measure(
                    max(runs // 4, 3),
                    lambda: bay("up", "-d", cwd=one),
                    lambda: bay("down", "-t", "0", cwd=one),
                ),
                "",
            )
        )
        rows.append(
            (
                "down of one service",
                _measure(
                    max(runs // 4, 3),
                    lambda: bay("down", "-t", "0", cwd=one),
                    lambda: bay("up", "-d", cwd=one),
                ),
                "",
            )
        )
    print(f"{'':34}{'min':>8}{'median':>8}{'max':>8}   goal (ms)")
    for title, times, goal in rows:
        figures = f"{times[0]:8.1f}{statistics.median(times):8.1f}{times[-1]:8.1f}"
        print(f"{title:34}{figures}   {goal and f'≤ {goal}'}")


if __name__ == "__main__":
    main()
