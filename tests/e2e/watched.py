"""A `bay watch` that runs beside a test: its events, and the files that its containers have."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.conftest import wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay


class Watched:
    """`lines` are what it has printed so far, `events` those of them that are events."""

    def __init__(self, bay: Bay, directory: Path, process: subprocess.Popen[str]) -> None:
        self._bay = bay
        self._directory = directory
        self._process = process
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith('{"type": "watch"'):
                self.events.append(json.loads(line))

    def until(self, true: Callable[[], object], seconds: float = 60) -> None:
        """Wait for a predicate; what was printed is part of a failure."""
        try:
            wait_until(true, "what the loop was to do is done", seconds)
        except BaseException:
            print("\n".join(self.lines[-40:]))
            raise

    def heard(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The events of this kind that have these fields."""
        return [
            one
            for one in self.events
            if one["event"] == event and all(one.get(key) == fields[key] for key in fields)
        ]

    def count(self, event: str, **fields: object) -> int:
        return len(self.heard(event, **fields))

    def event(
        self, event: str, *, after: dict[str, Any] | None = None, **fields: object
    ) -> dict[str, Any]:
        """Wait for the first such event, or the first one later than `after`."""
        since = 0.0 if after is None else after["at"]
        self.until(lambda: [one for one in self.heard(event, **fields) if one["at"] > since])
        return next(one for one in self.heard(event, **fields) if one["at"] > since)

    def synced(self, *paths: Path) -> None:
        """Wait until syncs have brought all of these."""

        def brought() -> bool:
            done = {path for one in self.heard("done") for path in one["paths"]}
            return {str(path) for path in paths} <= done

        self.until(brought)

    def read(self, service: str, path: str) -> str:
        """A file of the service's first container; nothing where there is none."""
        return self._bay("exec", "-T", service, "cat", path, cwd=self._directory).out

    def files(self, service: str, path: str, *, index: int = 1) -> list[str]:
        """Files and links below a directory of one replica, links with where they lead."""
        listed = self._bay(
            *("exec", "-T", "--index", str(index), service, "find", path, "-mindepth", "1"),
            *("(", "-type", "f", "-printf", "%P\\n", ")", "-o"),
            *("(", "-type", "l", "-printf", "%P -> %l\\n", ")"),
            cwd=self._directory,
        )
        return sorted(listed.out.splitlines())

    @staticmethod
    def here(directory: Path) -> list[str]:
        """The same of a directory of this host without links."""
        return sorted(
            str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()
        )

    def checksums(self, service: str, path: str) -> dict[str, str]:
        """SHA-256 by path, of the service's first container."""
        program = f"cd {path} && find . -type f -print0 | xargs -0 sha256sum"
        listed = self._bay.ok("exec", "-T", service, "sh", "-c", program, cwd=self._directory)
        return {line[66:].removeprefix("./"): line[:64] for line in listed.splitlines()}

    @classmethod
    def checksums_here(cls, directory: Path) -> dict[str, str]:
        return {
            name: hashlib.sha256((directory / name).read_bytes()).hexdigest()
            for name in cls.here(directory)
        }

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Press Ctrl-C, or send another signal; the exit status."""
        self._process.send_signal(number)
        return self._process.wait(60)


@contextlib.contextmanager
def watch(
    bay: Bay, directory: Path, *args: str, env: Mapping[str, str] | None = None
) -> Iterator[Watched]:
    """`bay watch` in a directory, once it follows the files."""
    with bay.started("watch", "--format", "json", *args, cwd=directory, env=env) as process:
        loop = Watched(bay, directory, process)
        loop.until(lambda: process.poll() is not None or loop.heard("watching"), 120)
        assert process.poll() is None, "\n".join(loop.lines)
        yield loop


def changed(loop: Watched, tree: Path, other: Path) -> None:
    """Have `tree` become `other` as a checkout of another branch does it: file after file."""
    names = set(loop.here(other))
    for name in loop.here(tree):
        if name not in names:
            (tree / name).unlink()
            with contextlib.suppress(OSError):
                (tree / name).parent.rmdir()
    for name in sorted(names):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tree / name)
        shutil.copyfile(other / name, tree / name)
