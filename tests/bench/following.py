"""How long a push takes to run here: from the delivery that tells of it to the new container, and
to the revision that has proved healthy.

    sudo python -m tests.bench.following

git's own server on loopback, one stack without a network, a health check every 50 ms.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.bench.compose import _IMAGE, _archive
from tests.e2e.gitops.conftest import SERVER, GitServer, Repository

_ROUNDS = 20
_SECRET = "bench"
_BAY = Path(sys.executable).with_name("bay")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        served = place / "served"
        served.mkdir()
        with subprocess.Popen(
            [sys.executable, "-I", str(SERVER), str(served)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            try:
                _measure(place, GitServer(directory=served, url=url))
            finally:
                process.kill()


class Instance:
    def __init__(self, place: Path) -> None:
        self.environ = {
            **os.environ,
            "BAYPLAN_ROOT": str(place / "root"),
            "BAYPLAN_RUN": str(place / "run"),
        }

    def __call__(self, *args: str) -> str:
        done = subprocess.run(
            [str(_BAY), *args], env=self.environ, check=True, capture_output=True, text=True
        )
        return done.stdout


def _measure(place: Path, server: GitServer) -> None:
    bay = Instance(place)
    repository = Repository(server, place, "bench")
    repository.push({"compose.yaml": _stack(0)})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    (place / "secret").write_text(_SECRET)
    source = {
        "apiVersion": "bayplan/v1",
        "kind": "GitSource",
        "metadata": {"name": "bench"},
        "spec": {
            "url": repository.url,
            "ref": {"branch": "main"},
            "interval": "1h",
            "webhook": {"secretFile": "secret"},
        },
    }
    (place / "source.json").write_text(json.dumps(source))
    try:
        bay("image", "import", str(_archive(place)), _IMAGE)
        bay("gitops", "add", str(place / "source.json"))
        bay("gitops", "listen", address)
        rounds = [_round(bay, repository, address, number) for number in range(1, _ROUNDS + 1)]
    finally:
        bay("gitops", "rm", "bench")
        bay("daemon", "stop")
    print(f"{'from the delivery to (ms)':<38}{'median':>8}{'max':>9}")
    for what, took in zip(
        ("the answer", "the new container", "the healthy revision"),
        zip(*rounds, strict=True),
        strict=True,
    ):
        print(f"{what:<38}{statistics.median(took):>8.0f}{max(took):>9.0f}")


def _stack(number: int) -> str:
    command = json.dumps(["/bin/busybox", "sleep", str(10_000 + number)])
    return (
        f"services:\n  web:\n    image: {_IMAGE}\n    network_mode: none\n"
        f"    command: {command}\n    init: true\n    stop_grace_period: 0s\n"
        "    healthcheck: {test: [CMD, /bin/busybox, 'true'], interval: 50ms}\n"
    )


def _round(
    bay: Instance, repository: Repository, address: str, number: int
) -> tuple[float, float, float]:
    commit = repository.push({"compose.yaml": _stack(number)})
    body = json.dumps({"ref": "refs/heads/main", "after": commit}).encode()
    signature = hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    request = urllib.request.Request(f"http://{address}/v1/gitops/bench/webhook", body, headers)
    word = str(10_000 + number).encode()
    started = time.perf_counter()
    urllib.request.urlopen(request, timeout=10).read()
    answered = time.perf_counter()
    while not _runs(word):
        time.sleep(0.002)
    running = time.perf_counter()
    while _status(bay)["last_applied"]["commit"] != commit:
        time.sleep(0.01)
    applied = time.perf_counter()
    return (answered - started) * 1000, (running - started) * 1000, (applied - started) * 1000


def _runs(word: bytes) -> bool:
    """Whether a process with this argument runs."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if line[:3] == [b"/bin/busybox", b"sleep", word]:
            return True
    return False


def _status(bay: Instance) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(bay("gitops", "ls", "--format", "json"))[0]
    return status


if __name__ == "__main__":
    main()
