"""A git server in the host's namespace, repositories on it, and sources that follow them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import http.client
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay, Host, Result

SERVER = Path(__file__).with_name("server.py")
BASE = "debian:bookworm"
SECRET = "a secret that only the git server knows"

_DELIVER = """
import json, sys, urllib.error, urllib.request
url, body, headers = json.load(sys.stdin)
request = urllib.request.Request(url, body.encode(), headers)
try:
    print(urllib.request.urlopen(request, timeout=20).status)
except urllib.error.HTTPError as exc:
    print(exc.code)
"""


def git(*words: str, cwd: Path, environ: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_AUTHOR_NAME": "A. Author",
            "GIT_AUTHOR_EMAIL": "author@example.org",
            "GIT_COMMITTER_NAME": "A. Author",
            "GIT_COMMITTER_EMAIL": "author@example.org",
            **(environ or {}),
        },
    )
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GitServer:
    """Bare repositories below `directory`, served at `url`."""

    directory: Path
    url: str

    def stop_answering(self) -> None:
        (self.directory / "down").touch()

    def answer_again(self) -> None:
        (self.directory / "down").unlink()


class Repository:
    """A clone to work in, whose pushes reach the server."""

    def __init__(self, server: GitServer, place: Path, name: str) -> None:
        self.name = name
        self.bare = server.directory / f"{name}.git"
        self.url = f"{server.url}/{name}.git"
        self.work = place / f"work-{name}"
        git("init", "-q", "--bare", "-b", "main", str(self.bare), cwd=place)
        git("init", "-q", "-b", "main", str(self.work), cwd=place)
        git("remote", "add", "origin", str(self.bare), cwd=self.work)

    def git(self, *words: str) -> str:
        return git(*words, cwd=self.work)

    def write(self, files: Mapping[str, str | None]) -> None:
        """Files by their path; None removes one."""
        for path, text in files.items():
            place = self.work / path
            if text is None:
                place.unlink()
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text)

    def push(self, files: Mapping[str, str | None], *, force: bool = False) -> str:
        """Commit these files and push; gives the commit."""
        self.write(files)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", f"change {', '.join(files)}")
        self.git("push", "-q", *(["--force"] if force else []), "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")


class Source:
    """A source on an instance."""

    def __init__(self, bay: Bay, name: str, file: Path) -> None:
        self.bay = bay
        self.name = name
        self.file = file

    def add(self, spec: Mapping[str, Any], *args: str) -> Result:
        """Write the source's file, and have the instance take it on."""
        document = {
            "apiVersion": "bayplan/v1",
            "kind": "GitSource",
            "metadata": {"name": self.name},
            "spec": dict(spec),
        }
        self.file.write_text(json.dumps(document))
        return self.bay("gitops", "add", str(self.file), *args)

    def __call__(self, verb: str, *args: str) -> Result:
        """Run `bay gitops VERB NAME`; gives the result."""
        return self.bay("gitops", verb, self.name, *args)

    def sync(self, *args: str) -> Result:
        return self("sync", *args)

    def status(self) -> dict[str, Any]:
        shown = self.bay("gitops", "status", self.name, "--format", "json")
        assert shown.status in (0, 2), str(shown)
        status: dict[str, Any] = json.loads(shown.out)
        return status

    def applied(self) -> str:
        """The commit that stands."""
        found = self.status()["last_applied"]
        return found["commit"] if found else ""

    def deliver(self, port: int, secret: str = SECRET, ref: str = "refs/heads/main") -> int:
        """Tell of a push as GitHub does; gives the HTTP status."""
        body = json.dumps({"ref": ref, "after": uuid.uuid4().hex})
        signature = hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-Hub-Signature-256": f"sha256={signature}",
        }
        url = f"http://127.0.0.1:{port}/v1/gitops/{self.name}/webhook"
        done = subprocess.run(
            self.bay.host.inside(sys.executable, "-I", "-c", _DELIVER),
            input=json.dumps([url, body, headers]),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)


def write_stack(*names: str, **settings: str) -> str:
    """A stack of services that sleep; each setting is an environment variable of all."""
    lines = ["services:"]
    for name in names:
        lines += [
            f"  {name}:",
            f"    image: {BASE}",
            "    init: true",
            "    command: sleep 10000",
            "    stop_grace_period: 0s",
            f"    environment: {json.dumps(settings)}",
        ]
    return "\n".join(lines) + "\n"


class _DaemonConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("daemon", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


@pytest.fixture
def ask(bay: Bay) -> Callable[[str], str]:
    """What the daemon answers to a GET of a path, which must be there."""

    def get(path: str) -> str:
        with contextlib.closing(_DaemonConnection(bay.run_directory / "bayplan.sock")) as daemon:
            daemon.request("GET", path)
            answer = daemon.getresponse()
            assert answer.status == 200, path
            return answer.read().decode()

    return get


@pytest.fixture
def stack() -> Callable[..., str]:
    return write_stack


@pytest.fixture
def unhealthy(stack: Callable[..., str]) -> str:
    """A stack whose service `web` comes up, and never proves healthy."""
    check = '    healthcheck: {test: ["CMD", "false"], interval: 100ms, timeout: 5s, retries: 1}\n'
    return stack("web") + check


@pytest.fixture(scope="session")
def git_server(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    directory = tmp_path_factory.mktemp("git")
    with subprocess.Popen(
        host.inside(sys.executable, "-I", str(SERVER), str(directory)),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield GitServer(directory=directory, url=f"http://127.0.0.1:{port}")
        process.kill()


@pytest.fixture
def repository(git_server: GitServer, tmp_path: Path) -> Repository:
    return Repository(git_server, tmp_path, f"r{uuid.uuid4().hex[:8]}")


@pytest.fixture
def follow(bay: Bay, tmp_path: Path) -> Iterator[Callable[..., tuple[Source, Result]]]:
    """Have the instance take on a source that follows a repository; it goes at the end. The
    result is the source and how the command ended. Without a health gate, unless a test asks for
    one: each proof takes a second."""
    made: list[Source] = []

    def make(
        repository: Repository, *args: str, name: str = "", **spec: Any
    ) -> tuple[Source, Result]:
        source = Source(bay, name or repository.name, tmp_path / f"{uuid.uuid4().hex}.json")
        settings = {
            "url": repository.url,
            "ref": {"branch": "main"},
            "interval": "1h",
            "healthGate": {"enabled": False},
            "retry": {"backoff": "200ms", "maxBackoff": "400ms"},
            **spec,
        }
        made.append(source)
        return source, source.add(settings, *args)

    yield make
    for source in made:
        if source("status").status in (0, 2):
            ended = source("rm")
            assert ended.status == 0, str(ended)


@pytest.fixture
def webhook_port(bay: Bay) -> Iterator[int]:
    """Where the instance takes deliveries."""
    bay.ok("gitops", "listen", "127.0.0.1:9080")
    yield 9080
    bay.ok("gitops", "listen", "--off")


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "webhook-secret"
    path.write_text(SECRET)
    return path
