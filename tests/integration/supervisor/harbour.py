"""A daemon in a network namespace of its own, that a test can start, ask and kill."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.client.errors import ClientError
from orchestrator.client.http import Client
from runtime.container.record import StartRecord, read_start
from runtime.images.store import ImageStore, host_platform
from runtime.oci.image_config import ImageConfig

BUSYBOX = Path("/bin/busybox")
IMAGE = "busybox"
_COMMANDS = (
    *("cat", "echo", "env", "false", "head", "httpd", "id", "ip", "kill", "mkdir", "nc", "rm"),
    *("nslookup", "seq", "sh", "sleep", "stat", "test", "touch", "true", "wget", "yes"),
)


class Harbour:
    """One instance below `directory`; `netns` is the name of its network namespace."""

    def __init__(self, directory: Path, netns: str) -> None:
        self.root = directory / "root"
        self.run = directory / "run"
        self.netns = netns
        self.run.mkdir(parents=True)
        self.client = Client(str(self.run / "bayplan.sock"))
        self._daemon: subprocess.Popen[bytes] | None = None
        make_image(self.root)

    def start(self, *options: str) -> None:
        """Start the daemon; it accepts requests when this returns."""
        ready, ready_child = os.pipe2(os.O_CLOEXEC)
        with open(self.run / "daemon.log", "ab") as log:
            self._daemon = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{self.netns}", sys.executable, "-I", "-m"),
                    *("orchestrator.supervisor.daemon", "--root", str(self.root)),
                    *("--run", str(self.run), "--ready-fd", str(ready_child)),
                    *options,
                ],
                stdout=log,
                stderr=log,
                pass_fds=(ready_child,),
            )
        os.close(ready_child)
        said = os.read(ready, 1)
        os.close(ready)
        if not said:
            self._daemon.wait(10)
        assert said, (self.run / "daemon.log").read_text()

    def kill(self) -> None:
        """kill -9."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait(10)

    @property
    def alive(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is None

    def wait(self) -> None:
        """Return once the daemon that was started has ended."""
        assert self._daemon is not None
        self._daemon.wait(10)

    def stop(self) -> None:
        assert self._daemon is not None
        self._daemon.terminate()
        status = self._daemon.wait(20)
        assert status == 0, (status, (self.run / "daemon.log").read_text())

    def post(self, verb: str, **body: Any) -> Iterator[dict[str, Any]]:
        """The events of an operation on the project, as they come."""
        yield from self.client.stream("POST", f"/v1/projects/shop/{verb}", body).events()

    def result(self, verb: str, **body: Any) -> dict[str, Any]:
        *_, last = self.post(verb, **body)
        return last

    def up(self, project: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        """Bring the project up, which must succeed; the plan's steps."""
        events = list(self.post("up", project=project, options={"wait": True, **options}))
        assert events[-1]["ok"], events[-1]
        return [step for event in events if event["type"] == "plan" for step in event["steps"]]

    def text(self, path: str) -> str:
        """The body of an answer that is no JSON."""
        with self.client.connect() as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: bayplan\r\n\r\n".encode())
            with connection.makefile() as answer:
                head, _, body = answer.read().partition("\n\n")
        assert " 200 " in head.splitlines()[0], head
        return body

    def containers(self) -> dict[str, dict[str, Any]]:
        found = self.client.get("/v1/projects/shop/containers", all=1)
        return {container["name"]: container for container in found}

    def kill_when(self, project: dict[str, Any], wanted: Any) -> None:
        """kill -9 at the event of an `up` that satisfies `wanted`, or after its last one.

        While the answer is still being read: one that is let go of is a run that is canceled.
        """
        events = self.post("up", project=project, options={"wait": True})
        any(wanted(event) for event in events)
        self.kill()
        with contextlib.suppress(ClientError):
            deque(events, maxlen=0)

    def runs(self) -> dict[str, StartRecord]:
        """Who runs which container now, by its id."""
        found = {}
        for path in (self.root / "containers").glob("*/state.json"):
            record = read_start(path)
            ended = path.with_name("exit.json").exists()
            if record is not None and record.alive() and not ended:
                found[path.parent.name] = record
        return found

    def leftovers(self) -> list[str]:
        """What is outside of the state directory, less the namespace's own loopback."""
        links = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.netns}", "ls", "/proc/net/dev_snmp6"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()
        tables = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.netns}", "nft", "list", "tables"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        tag = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:8]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return [
            *(f"link {link}" for link in links if link != "lo"),
            *(f"rules {table}" for table in tables),
            *(f"mount {line}" for line in mounts if f"{self.root.parent}/" in line),
            *(f"cgroup {path}" for path in control_groups() if tag in path.rpartition("/")[2]),
            *(f"process {pid} {line}" for pid, line in command_lines() if str(self.root) in line),
            *(f"namespace {path}" for path in self.run.glob("netns/*")),
        ]


def control_groups() -> Iterator[str]:
    """Those of others come and go meanwhile."""
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (f"{directory}/{name}" for name in names)


def command_lines() -> Iterator[tuple[int, str]]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if line and int(process.name) != os.getpid():
            yield int(process.name), line


def make_image(root: Path) -> None:
    """Give a state directory an image of one static program under its usual names."""
    root.mkdir(parents=True, exist_ok=True)
    store = ImageStore(root)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "data", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        content = BUSYBOX.read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
        for name in _COMMANDS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    buffer.seek(0)
    config = ImageConfig(
        architecture=host_platform().architecture, env=("PATH=/bin",), cmd=("sleep", "1000")
    )
    with store.lease() as lease:
        store.create_image(config, [store.add_layer(buffer, lease=lease)], [IMAGE], lease=lease)
