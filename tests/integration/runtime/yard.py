"""A place of their own for containers under test, on an image of busybox alone."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import select
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups.manager import hierarchies
from runtime.container.config import ContainerConfig, ExecConfig
from runtime.container.containers import Containers, ContainerState
from runtime.container.paths import Instance
from runtime.container.record import ExitRecord
from runtime.container.sessions import read_watch

BUSYBOX = Path("/bin/busybox")
_APPLETS = """
awk cat chmod chown cp cut date dd df dmesg echo env expr false find grep head hostname id kill
ln ls mkdir mknod mount mv nice nohup od ping ps pwd readlink rm sed seq setsid sh sleep sort stat
stty tail test timeout touch tr true tty umount uname unshare wc whoami xargs yes
"""
PASSWD = """root:x:0:0:root:/root:/bin/sh
bob:x:1000:1000:Bob:/home/bob:/bin/sh
0:x:1000:1000:a name that is a number:/:/bin/sh
"""
GROUP = """root:x:0:
bob:x:1000:
crew:x:2000:bob
extra:x:3000:
"""


def make_layer(directory: Path) -> Path:
    """An image's only layer: busybox and the files that name its users."""
    binaries = directory / "bin"
    binaries.mkdir(parents=True)
    shutil.copy(BUSYBOX, binaries / "busybox")
    for applet in _APPLETS.split():
        (binaries / applet).symlink_to("busybox")
    for name in ("etc", "proc", "sys", "dev", "run", "root"):
        (directory / name).mkdir()
    (directory / "tmp").mkdir()
    (directory / "tmp").chmod(0o1777)
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    return directory


def until(condition: Callable[[], Any], *, seconds: float = 10, what: str = "") -> Any:
    """Wait for `condition` to hold and give what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what or condition}"
        select.select([], [], [], 0.005)
    return found


@dataclass(frozen=True, slots=True)
class Run:
    """How a container, or a command in one, ended."""

    exit_code: int
    output: str
    errors: str = ""


class Yard:
    """Makes containers below `directory`, and proves at the end that nothing of them stays."""

    def __init__(self, directory: Path, layer: Path) -> None:
        self.directory = directory
        self.layer = layer
        self.root = directory / "root"
        self.sockets = directory / "run"
        self.containers = Containers(self.root, self.sockets)
        self.instance = Instance(self.root, self.sockets)
        # Processes are found by their titles, in which other yards' containers must not stand.
        mark = secrets.token_hex(3)
        self._ids = (f"c{number}-{mark}" for number in itertools.count())

    def config(self, *argv: str, **settings: Any) -> ContainerConfig:
        settings = {"id": next(self._ids), "layers": (str(self.layer),), **settings}
        return ContainerConfig(argv=argv, **settings)

    def create(self, *argv: str, **settings: Any) -> str:
        config = self.config(*argv, **settings)
        self.containers.create(config)
        return config.id

    def start(self, *argv: str, **settings: Any) -> str:
        id = self.create(*argv, **settings)
        self.containers.start(id)
        return id

    def run(self, *argv: str, **settings: Any) -> Run:
        """Run to the end; the output is what both streams said, in the order of the log."""
        id = self.start(*argv, **settings)
        state = self.finish(id)
        assert state.exit_code is not None
        run = Run(state.exit_code, self.log(id))
        self.containers.delete(id)
        return run

    def sh(self, script: str, **settings: Any) -> Run:
        return self.run("sh", "-c", script, **settings)

    def finish(self, id: str, *, seconds: float = 20) -> ContainerState:
        """Wait until the container has ended."""
        self.exit_of(id, seconds=seconds)
        return self.containers.get(id)

    def exit_of(self, id: str, *, seconds: float = 20) -> ExitRecord | None:
        if self.containers.get(id).status == "exited":
            return None
        try:
            connection = self.containers.watch(id)
        except Exception:
            until(lambda: self.containers.get(id).status == "exited", what=f"{id} exits")
            return None
        with connection:
            assert select.select([connection], [], [], seconds)[0], f"{id} does not end"
            return read_watch(connection)

    def kill(self, id: str) -> ContainerState:
        self.containers.signal(id, 9)
        return self.finish(id)

    def exec(self, id: str, *argv: str, stdin: bytes | None = None, **settings: Any) -> Run:
        config = ExecConfig(argv=argv, stdin=stdin is not None, **settings)
        with self.containers.exec(id, config) as session:
            if session.terminal is not None:
                output = read_terminal(session.terminal)
                return Run(session.wait(), output)
            if session.stdin is not None:
                os.write(session.stdin, stdin or b"")
                os.close(session.stdin)
                session.stdin = None
            assert session.stdout is not None and session.stderr is not None
            output, errors = read_pipes(session.stdout, session.stderr)
            return Run(session.wait(), output, errors)

    def log(self, id: str) -> str:
        return "".join(json.loads(line)["log"] for line in self.log_lines(id))

    def log_lines(self, id: str) -> list[str]:
        path = self.containers.log_path(id)
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_output(self, id: str, text: str) -> str:
        return str(until(lambda: text in self.log(id) and self.log(id), what=f"{text!r} in log"))

    def monitor_pid(self, id: str) -> int:
        return int(json.loads(self.instance.container(id).state.read_text())["monitor"])

    def launcher_pid(self) -> int:
        return self.processes("launcher of " + str(self.root))[0]

    def processes(self, about: str) -> list[int]:
        """The processes whose command line says `bay: about`."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
                except OSError:
                    continue
                if line == f"bay: {about}":
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        for state in self.containers.list():
            self.containers.delete(state.id, force=True)
        self.containers.close()

    def assert_nothing_is_left(self) -> None:
        until(lambda: not self.processes("launcher of " + str(self.root)), what="the launcher ends")
        assert str(self.directory) not in Path("/proc/self/mountinfo").read_text()
        found = hierarchies()
        for place in {*found.v1.values(), *([found.unified] if found.unified else [])}:
            assert not (place / self.instance.tag).exists()
        assert [path.name for path in self.sockets.rglob("*")] == []
        kept = [path.name for path in self.instance.containers.iterdir()]
        assert [name for name in kept if name not in (".seed", ".empty")] == []


def read_pipes(stdout: int, stderr: int) -> tuple[str, str]:
    texts = {stdout: b"", stderr: b""}
    waiting = [stdout, stderr]
    while waiting:
        ready, _, _ = select.select(waiting, [], [], 20)
        assert ready, "the command says nothing and does not end"
        for fd in ready:
            block = os.read(fd, 65536)
            texts[fd] += block
            if not block:
                waiting.remove(fd)
    return texts[stdout].decode(), texts[stderr].decode()


def read_terminal(terminal: int) -> str:
    text = b""
    while select.select([terminal], [], [], 20)[0]:
        try:
            block = os.read(terminal, 65536)
        except OSError:
            break  # the last process on it has gone
        if not block:
            break
        text += block
    return text.decode().replace("\r\n", "\n")


def needs(*conditions: tuple[bool, str]) -> None:
    for holds, reason in conditions:
        if not holds:
            pytest.skip(reason)
