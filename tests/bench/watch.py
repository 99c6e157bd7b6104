"""How long a save takes in the guest book: into the container, into a page that is served, and
through a checkout of 5,000 files; and what a dev loop costs that has nothing to do.

    sudo python -m tests.bench.watch

The images are those that the tests in tests/e2e have built. Everything happens in a network
namespace and a state directory that end with this run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

from runtime.container.paths import Instance as Places
from runtime.container.record import read_start
from tests.e2e.conftest import GUESTBOOK, copy_images

_BAY = Path(sys.executable).with_name("bay")
_INSIDE = "--inside"  # the argument that tells that the namespace is there
_SAVES = 500
_RESTARTS = 30
_FILES = 5000
_PATIENCE = 30.0
_PORT = "8080"


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root")
    cache = Path(os.environ.get("BAYPLAN_TEST_CACHE", "/var/cache/bayplan-tests"))
    images = next((home.parent for home in cache.glob("guestbook-*/complete")), None)
    if images is None:
        raise SystemExit("bench: tests/e2e/test_guestbook.py has not built the images yet")
    name = f"bay_bench_{os.getpid()}"
    place = Path(tempfile.mkdtemp(prefix="bay-bench-", dir=cache))
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        (place / "root").mkdir()
        copy_images(images / "root", place / "root")
        program = [sys.executable, "-m", "tests.bench.watch", _INSIDE, str(place)]
        subprocess.run(["nsenter", f"--net=/run/netns/{name}", *program], check=True)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
        shutil.rmtree(place)


class Loop:
    """A `bay watch` that runs; `done` counts what it has done."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self.done = 0
        self._lines = process.stdout
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        for line in self._lines or ():
            self.done += json.loads(line)["event"] == "done"

    def restarted(self) -> Callable[[], str]:
        """Gives the page that is served, once the next thing is done."""
        before = self.done

        def served() -> str:
            if self.done == before:
                return ""
            with urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/", timeout=5) as answer:
                return str(answer.read().decode())

        return served


class Stack:
    """The guest book in a directory of its own, whose web service syncs as `action` says."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.directory = place / "guestbook"
        shutil.copytree(GUESTBOOK, self.directory)
        self._spec = (self.directory / "compose.yaml").read_text()
        self.page = self.directory / "web" / "page.html"
        self.text = self.page.read_text()

    def bay(self, *args: str) -> list[str]:
        places = ["--root", str(self._place / "root"), "--run", str(self._place / "run")]
        return ["env", "--default-signal=INT", str(_BAY), *places, *args]

    def ask(self, *args: str) -> str:
        done = subprocess.run(
            self.bay(*args), cwd=self.directory, check=True, capture_output=True, text=True
        )
        return done.stdout

    @contextlib.contextmanager
    def watched(self, action: str) -> Iterator[Loop]:
        """`bay watch` while the block lasts, once it follows."""
        spec = self._spec.replace("action: sync+restart", f"action: {action}")
        (self.directory / "compose.yaml").write_text(spec)
        with subprocess.Popen(
            self.bay("watch", "--format", "json"),
            cwd=self.directory,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line)["event"] == "watching":
                    break
            yield Loop(process)
            process.send_signal(signal.SIGINT)

    def inside(self, path: str) -> Path:
        """A path of the web container as the kernel shows it out here."""
        container = json.loads(self.ask("ps", "--format", "json", "web").splitlines()[0])
        places = Places(self._place / "root", self._place / "run")
        started = read_start(places.container(container["ID"]).state)
        assert started is not None
        return Path(f"/proc/{started.pid}/root{path}")


def _inside(place: Path) -> None:
    stack = Stack(place)
    print(f"{'from a save to (ms)':<44}{'p50':>8}{'p99':>8}{'max':>8}   aimed at")
    try:
        with stack.watched("sync") as loop:
            target = stack.inside("/app/page.html")
            saves = [_save(stack, number, lambda: target.read_text()) for number in range(_SAVES)]
            idle = _idle(loop.pid)
            checkouts = [_check_out(stack, word) for word in ("one", "two", "three")]
        _print(f"its bytes in the container ({_SAVES})", saves, "p50 50, p99 150")
        _print(f"{_FILES} files identical in the container", checkouts, "")
        shutil.rmtree(stack.directory / "web" / "tree")
        with stack.watched("sync+restart") as loop:
            restarts = [_save(stack, number, loop.restarted()) for number in range(_RESTARTS)]
        _print(f"the page from a restarted service ({_RESTARTS})", restarts, "400")
        print(f"{'processor time of a loop with nothing to do':<44}{idle:>7.2f}%")
    finally:
        stack.ask("down", "-v", "-t", "0")
        stack.ask("daemon", "stop")


def _save(stack: Stack, number: int, read: Callable[[], str]) -> float:
    """Save the page with a mark; how long until `read` gives it."""
    mark = f"<!-- save {number} of {time.time_ns()} -->"
    started = time.perf_counter()
    # As editors save: a new file takes the old one's name.
    new = stack.page.with_name(".page.html.swp")
    new.write_text(f"{stack.text}{mark}\n")
    new.replace(stack.page)
    while True:
        with contextlib.suppress(OSError, HTTPException):
            if mark in read():
                break
        if time.perf_counter() - started > _PATIENCE:
            raise SystemExit("bench: a save did not arrive")
        time.sleep(0.0005)
    return (time.perf_counter() - started) * 1000


def _check_out(stack: Stack, word: str) -> float:
    """Have 5,000 files change as in a checkout; how long until the container's are the same."""
    here, there = stack.directory / "web" / "tree", stack.inside("/app/tree")
    wanted: dict[str, str] = {}
    started = time.perf_counter()
    for number in range(_FILES):
        name = f"d{number % 50}/{word if number % 10 == 0 else 'both'}{number}.txt"
        wanted[name] = f"{word} {number}\n"
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(wanted[name])
    for old in here.rglob("*.txt"):
        if str(old.relative_to(here)) not in wanted:
            old.unlink()
    while _content(there) != wanted:
        if time.perf_counter() - started > _PATIENCE * 4:
            raise SystemExit("bench: a checkout did not arrive")
        time.sleep(0.01)
    return (time.perf_counter() - started) * 1000


def _content(tree: Path) -> dict[str, str]:
    found = {}
    with contextlib.suppress(OSError):
        for path in tree.rglob("*.txt"):
            found[str(path.relative_to(tree))] = path.read_text()
    return found


def _idle(pid: int) -> float:
    """Per cent of a processor that the process takes over some seconds."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before, seconds = ticks(), 5.0
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds * 100


def _print(what: str, took: list[float], goal: str) -> None:
    took.sort()
    p99 = took[min(len(took) - 1, int(len(took) * 0.99))]
    print(
        f"{what:<44}{statistics.median(took):>8.1f}{p99:>8.1f}{took[-1]:>8.1f}   {goal}", flush=True
    )


if __name__ == "__main__":
    if _INSIDE in sys.argv:
        _inside(Path(sys.argv[-1]))
    else:
        main()
