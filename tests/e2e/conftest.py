"""A host for the command: a network namespace with a way out, and instances inside it.

`bay` runs in that namespace with state and run directories of its own, beside whatever else
runs on this machine. Base image and builds are made once and kept in a cache directory
(`BAYPLAN_TEST_CACHE`, /var/cache/bayplan-tests) until the code that makes images changes;
every instance starts from a copy of that cache, made of hard links.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
GUESTBOOK = REPOSITORY / "examples" / "guestbook"
BASE = "debian:bookworm"
_BAY = Path(sys.executable).with_name("bay")
_STATE = ("containers", "volumes", "networks", "state.db*", "*.log", "*.sock")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """How a command ended, and what it printed."""

    args: tuple[str, ...]
    status: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"bay {' '.join(self.args)}: status {self.status}\n{self.out}{self.err}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    """The network namespace that stands for a host of its own."""

    netns: str

    def inside(self, *command: str) -> list[str]:
        # Not `ip netns exec`: that would hide the control groups below /sys.
        return ["nsenter", f"--net=/run/netns/{self.netns}", *command]

    def output(self, *command: str) -> str:
        return subprocess.run(
            self.inside(*command), check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def fetch(self, url: str, body: Any = None) -> Any:
        """GET, or POST of `body` as JSON, from inside the namespace; gives the JSON answer."""
        program = (
            "import json, sys, urllib.request\n"
            "url, body = json.load(sys.stdin)\n"
            "data = None if body is None else json.dumps(body).encode()\n"
            "sys.stdout.write(urllib.request.urlopen(url, data, timeout=10).read().decode())\n"
        )
        done = subprocess.run(
            self.inside(sys.executable, "-I", "-c", program),
            input=json.dumps([url, body]),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def links(self) -> set[str]:
        return {link["ifname"] for link in json.loads(self.output("ip", "-j", "link"))}

    def tables(self) -> set[str]:
        listed = json.loads(self.output("nft", "-j", "list", "tables"))["nftables"]
        return {entry["table"]["name"] for entry in listed if "table" in entry}


class Bay:
    """The command on one instance."""

    def __init__(self, host: Host, root: Path, run: Path) -> None:
        self.host = host
        self.root = root
        self.run_directory = run
        self._links = host.links()
        self._tables = host.tables()

    def command(self, *args: str) -> list[str]:
        places = ["--root", str(self.root), "--run", str(self.run_directory)]
        return self.host.inside(str(_BAY), *places, *args)

    def __call__(
        self,
        *args: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float = 300,
    ) -> Result:
        """Run `bay` to its end; any status is fine."""
        done = subprocess.run(
            self.command(*args),
            cwd=cwd,
            env=environment(env),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Result(args=args, status=done.returncode, out=done.stdout, err=done.stderr)

    def ok(self, *args: str, **options: Any) -> str:
        """Run `bay`, which must succeed; gives what it printed."""
        result = self(*args, **options)
        assert result.status == 0, str(result)
        return result.out

    @contextlib.contextmanager
    def started(
        self,
        *args: str,
        cwd: Path | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Iterator[subprocess.Popen[str]]:
        """A `bay` that goes on by itself, `stdin` typed and then left open; ended when the block
        is left."""
        # A run in the background begins with SIGINT ignored; a person's shell does not.
        with subprocess.Popen(
            ["env", "--default-signal=INT", *self.command(*args)],
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                if stdin is not None and process.stdin is not None:
                    process.stdin.write(stdin)
                    process.stdin.flush()
                yield process
            finally:
                process.kill()

    def containers(self, cwd: Path) -> dict[str, dict[str, Any]]:
        """All containers of the project of a directory, by name."""
        lines = self.ok("ps", "-a", "--format", "json", cwd=cwd).splitlines()
        return {record["Name"]: record for record in map(json.loads, lines)}

    def daemon_pid(self) -> int:
        return int(json.loads(self.ok("daemon", "status", "--format", "json"))["pid"])

    def kill_daemon(self) -> None:
        """Kill -9, and wait until the process is gone."""
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _alive(pid), "the daemon is dead")

    def stop(self) -> None:
        """Take everything down, volumes too, and end the daemon."""
        for project in json.loads(self.ok("ls", "-a", "--format", "json")):
            self.ok("-p", project["Name"], "down", "-v", "-t", "0")
        self.ok("daemon", "stop")

    def leftovers(self) -> dict[str, list[str]]:
        """What is still there of the instance outside of its state directory."""
        tag = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:8]
        places = (f"{self.root}/", f"{self.run_directory}/")
        found = {
            "links": sorted(self.host.links() - self._links),
            "tables": sorted(self.host.tables() - self._tables),
            "mounts": [line for line in _mounts() if any(place in line for place in places)],
            "cgroups": [str(path) for path in _cgroups() if tag in path.name],
            "processes": [
                line
                for line in _command_lines()
                if str(self.root) in line or str(self.run_directory) in line
            ],
            "namespaces": [str(path) for path in self.run_directory.glob("netns/*")],
        }
        return {kind: things for kind, things in found.items() if things}


def environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """Ours, less what would choose another project or instance."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COMPOSE_", "BAYPLAN_", "GUESTBOOK_"))
    }
    return {**kept, **(extra or {})}


def wait_until(true: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait for a predicate; fails the test when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:g} s it is still not so that {what}")
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _cgroups() -> Iterator[Path]:
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            yield Path(directory, name)


def _command_lines() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            yield f"{process.name} {line}"


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _name_servers() -> str:
    """The host's resolv.conf, without servers that listen on its loopback alone."""
    upstream = Path("/run/systemd/resolve/resolv.conf")
    text = Path("/etc/resolv.conf").read_text()
    return upstream.read_text() if "nameserver 127." in text and upstream.exists() else text


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """A network namespace behind a link with masquerading; everything is removed at the end."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces and runs containers")
    number = os.getpid()
    name, outer, inner = f"bay_e2e_{number}", f"beo{number}", f"bei{number}"
    subnet = f"198.18.{number % 256}.{number // 256 % 64 * 4}"
    first = subnet.rpartition(".")[0] + "." + str(int(subnet.rpartition(".")[2]) + 1)
    second = subnet.rpartition(".")[0] + "." + str(int(subnet.rpartition(".")[2]) + 2)
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarded = forwarding.read_text()
    with contextlib.ExitStack() as undo:
        _run("ip", "netns", "add", name)
        undo.callback(_run, "ip", "netns", "delete", name)
        _run("ip", "link", "add", outer, "type", "veth", "peer", inner, "netns", name)
        _run("ip", "address", "add", f"{first}/30", "dev", outer)
        _run("ip", "link", "set", outer, "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{second}/30", "dev", inner),
            ("link", "set", inner, "up"),
            ("route", "add", "default", "via", first),
        ):
            _run("ip", "-n", name, *command)
        rules = (
            f"table ip {name} {{ chain out {{ type nat hook postrouting priority 100; "
            f'ip saddr {subnet}/30 oifname != "{outer}" masquerade; }}\n}}'
        )
        _run("nft", rules)
        undo.callback(_run, "nft", "delete", "table", "ip", name)
        forwarding.write_text("1\n")
        undo.callback(forwarding.write_text, forwarded)
        yield Host(netns=name)


@pytest.fixture(scope="session")
def cache() -> Path:
    place = Path(os.environ.get("BAYPLAN_TEST_CACHE", "/var/cache/bayplan-tests"))
    place.mkdir(parents=True, exist_ok=True)
    return place


class Templates:
    """State directories with images in them, made once and kept for later sessions."""

    def __init__(self, host: Host, cache: Path) -> None:
        self._host = host
        self._cache = cache
        self._homes: dict[str, Path] = {}
        self._held = contextlib.ExitStack()

    def close(self) -> None:
        """Let the next session with other code remove what this one has used."""
        self._held.close()

    def base(self) -> Path:
        """Knows the base image."""

        def make(bay: Bay) -> None:
            bay.ok("image", "bootstrap", BASE, timeout=600)

        return self._made("base", _digest("runtime/images", "runtime/oci"), make)

    def guestbook(self) -> Path:
        """Knows the base image and what the guest book is built from."""
        base = self.base()

        def make(bay: Bay) -> None:
            copy_images(base, bay.root)
            bay.ok("build", cwd=GUESTBOOK, timeout=900)

        key = _digest("runtime/images", "runtime/oci", "runtime/build", "examples/guestbook")
        return self._made("guestbook", key, make)

    def _made(self, name: str, key: str, make: Callable[[Bay], None]) -> Path:
        if name in self._homes:
            return self._homes[name] / "root"
        home = self._cache / f"{name}-{key}"
        with (self._cache / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (home / "complete").exists():
                self._remove_unused(name)
                (home / "root").mkdir(parents=True)
                bay = Bay(self._host, home / "root", home / "run")
                try:
                    make(bay)
                finally:
                    bay.ok("daemon", "stop")
                (home / "complete").touch()
            used = self._held.enter_context((home / "complete").open())
            fcntl.flock(used, fcntl.LOCK_SH)
        self._homes[name] = home
        return home / "root"

    def _remove_unused(self, name: str) -> None:
        """Remove what other code has made, but for what a session is using now."""
        for stale in self._cache.glob(f"{name}-*"):
            with contextlib.ExitStack() as held:
                with contextlib.suppress(FileNotFoundError):
                    used = held.enter_context((stale / "complete").open())
                    try:
                        fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                shutil.rmtree(stale)


def _digest(*folders: str) -> str:
    """Changes with any file below the folders of the repository."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix != ".pyc" and path.is_file():
                digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def copy_images(source: Path, root: Path) -> None:
    """Give a state directory the images of another; what never changes is linked."""
    for entry in source.iterdir():
        if not any(entry.match(pattern) for pattern in _STATE):
            link = ["--link"] if entry.name in ("blobs", "layers") else []
            _run("cp", "-a", *link, str(entry), str(root))


@pytest.fixture(scope="session")
def templates(host: Host, cache: Path) -> Iterator[Templates]:
    with contextlib.closing(Templates(host, cache)) as made:
        yield made


@pytest.fixture(scope="session")
def new_instance(host: Host, cache: Path, templates: Templates) -> Iterator[Callable[..., Bay]]:
    """Makes instances that know the base image, or those of another template."""
    made: list[Bay] = []

    def make(template: Path | None = None) -> Bay:
        home = cache / f"instance-{uuid.uuid4().hex[:8]}"
        root = home / "root"
        root.mkdir(parents=True)
        made.append(Bay(host, root, home / "run"))
        copy_images(template or templates.base(), root)
        return made[-1]

    yield make
    for bay in made:
        if bay("daemon", "status").status == 0:
            bay.stop()
        shutil.rmtree(bay.root.parent)


@pytest.fixture(scope="module")
def bay(new_instance: Callable[..., Bay]) -> Bay:
    """An instance for the tests of one module."""
    return new_instance()


@pytest.fixture
def project(tmp_path: Path, bay: Bay) -> Iterator[Callable[..., Path]]:
    """Writes a compose.yaml into a directory of its own, and takes the stack down at the end."""
    directories: list[Path] = []

    def write(text: str, **files: str) -> Path:
        directory = tmp_path / f"p{uuid.uuid4().hex[:8]}"
        directory.mkdir()
        (directory / "compose.yaml").write_text(text)
        for name, content in files.items():
            (directory / name).write_text(content)
        directories.append(directory)
        return directory

    yield write
    for directory in directories:
        bay("-p", directory.name, "down", "-v", "-t", "0")


@pytest.fixture
def eventually() -> Callable[..., None]:
    return wait_until
