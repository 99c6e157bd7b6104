"""Measures images beside other programs: builds, loading, push and pull.

Run as root: `python -m tests.bench.images [--docker-host SOCKET] [builds] [loads] [transfers]`.
Peers are used where they are there: buildah, skopeo with Debian's docker-registry, and docker
where `--docker-host` names the socket of a daemon, such as one of its own:

    dockerd --data-root DIR/data --exec-root DIR/exec --host unix://DIR/docker.sock \\
        --pidfile DIR/pid --bridge=none --iptables=false

What bayplan does is measured in this process, and through its command beside it, as the peers
are. A disk on which files were just deleted may be slow to make new ones (ext4 without a journal
passes over the inodes of the last minute): `--place` chooses another.

Runs alternate, so that a noisy machine is noisy for all. Times are in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.build.builder import BuildRequest, build
from runtime.build.run import ContainerStepRunner, host_network
from runtime.container.containers import Containers
from runtime.images.bootstrap import bootstrap
from runtime.images.load import load
from runtime.images.save import save
from runtime.images.store import ImageStore
from runtime.registry.endpoints import RegistryConfig
from runtime.registry.pull import pull
from runtime.registry.push import push

_BASE = "debian:bookworm"
_FILES = 200
_DOCKERFILE = f"""\
FROM {_BASE}
COPY files /srv/files
RUN mkdir -p /srv/out && cat /srv/files/* >/srv/out/all
RUN useradd --system app && chown -R app /srv/out
RUN rm -r /srv/files && test -s /srv/out/all
"""
_SPEC = """\
name: bench
services:
  web: {image: "bench:command", build: {context: ., network: host}}
"""
_BAY = str(Path(sys.executable).with_name("bay"))
_SERVER = (
    "import asyncio, sys\n"
    "from pathlib import Path\n"
    "from runtime.registry.server.app import serve\n"
    "from runtime.registry.server.config import ServerConfig\n"
    "config = ServerConfig(storage=Path(sys.argv[1]), listen='127.0.0.1:0')\n"
    "asyncio.run(serve(config, ready=lambda address: print(address, flush=True)))\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What is measured, and what is made ready before and not measured."""

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


def measure(title: str, attempts: Mapping[str, Attempt], rounds: int) -> None:
    """Let all attempts take turns; print how long each took, and ours as a share of it."""
    taken: dict[str, list[float]] = {name: [] for name in attempts}
    for _ in range(rounds):
        for name, attempt in attempts.items():
            attempt.prepare()
            started = time.perf_counter()
            attempt.run()
            taken[name].append((time.perf_counter() - started) * 1000)
    print(f"{title} ({rounds} rounds, load {os.getloadavg()[0]:.1f})")
    ours = next(iter(taken.values()))
    for name, times in taken.items():
        median, least = statistics.median(times), min(times)
        shares = f"{statistics.median(ours) / median:6.2f} {min(ours) / least:6.2f}"
        print(f"  {name:28} median {median:7.0f}  least {least:7.0f}  our share {shares}")
    sys.stdout.flush()


class Bench:
    """The places and peers of one run."""

    def __init__(self, place: Path, docker_host: str | None, stack: contextlib.ExitStack) -> None:
        self.place = place
        self.docker_host = docker_host
        self._stack = stack
        self._number = 0
        self._registry = ""
        self.store = ImageStore(place / "store")
        bootstrap(self.store, _BASE)
        self.archive = place / "base.tar"
        with open(self.archive, "wb") as file:
            save(self.store, [_BASE], file.write)
        self._containers = Containers(place / "root", place / "run")
        stack.callback(self._containers.close)
        self._runner = ContainerStepRunner(
            self._containers, open_network=host_network, scratch=place / "scratch"
        )
        self._context = place / "context"
        (self._context / "files").mkdir(parents=True)
        (self._context / "Dockerfile").write_text(_DOCKERFILE)
        (self._context / "compose.yaml").write_text(_SPEC)
        (self._context / ".dockerignore").write_text("compose.yaml\n")
        self._instance = ("--root", str(self.store.root), "--run", str(place / "daemon"))
        stack.callback(self._bay, "daemon", "stop")

    def builds(self, rounds: int) -> None:
        """A build of 200 files in four steps that no cache knows, and the same again."""
        runs: dict[str, Callable[[], object]] = {
            "bayplan": self._build,
            "bay build": lambda: self._bay("build", "-q"),
        }
        if self.docker_host:
            self._docker("load", "-qi", str(self.archive))
            words = ("build", "-q", "--network=host", "-t", "bench", str(self._context))
            runs["docker build (BuildKit)"] = lambda: self._docker(*words)
        if shutil.which("buildah"):
            self._buildah("pull", "-q", f"docker-archive:{self.archive}")
            bud = ("bud", "--layers", "--isolation", "chroot", "-q", "-t", "bench")
            runs["buildah bud"] = lambda: self._buildah(*bud, str(self._context))
        cold = {name: Attempt(run=run, prepare=self._fill) for name, run in runs.items()}
        self._fill()
        for run in runs.values():
            run()  # programs and base image are read once
        measure("build, nothing cached", cold, rounds)
        for run in runs.values():
            run()
        measure("build, all cached", {n: Attempt(run=r) for n, r in runs.items()}, rounds)

    def loads(self, rounds: int) -> None:
        """An archive of a Debian root becomes an image that containers can start from."""
        archives = {"layers compressed": self.archive}
        if self.docker_host:
            plain = self.place / "docker.tar"
            self._docker("load", "-qi", str(self.archive))
            self._docker("save", "-o", str(plain), _BASE)
            archives["layers plain"] = plain
        for title, archive in archives.items():
            attempts = {
                "bayplan": Attempt(
                    run=lambda a=archive: self._load(a),  # type: ignore[misc]  # bound now
                    prepare=self._clear,
                ),
                "bay image load": Attempt(
                    run=lambda a=archive: self._load_by_command(a),  # type: ignore[misc]  # bound now
                    prepare=self._clear,
                ),
            }
            if self.docker_host:
                attempts["docker load"] = Attempt(
                    run=lambda a=archive: self._docker("load", "-qi", str(a)),  # type: ignore[misc]  # bound now
                    prepare=self._forget,
                )
            measure(f"load, {title}, {archive.stat().st_size >> 20} MiB", attempts, rounds)

    def transfers(self, rounds: int) -> None:
        """Push and pull over loopback: our client and registry, skopeo and docker-registry.

        Every push goes to a registry that has just been started: skopeo remembers what one
        has, and would not send it again.
        """
        pushes = {"bayplan": Attempt(prepare=self._own_registry, run=self._push)}
        layout = f"oci:{self.place / 'layout'}:base"
        peers = shutil.which("skopeo") and shutil.which("docker-registry")
        if peers:
            self._skopeo(f"docker-archive:{self.archive}", layout)
            pushes["skopeo, docker-registry"] = Attempt(
                prepare=self._docker_registry,
                run=lambda: self._skopeo(layout, f"docker://{self._registry}/image"),
            )
        measure("push", pushes, rounds)
        self._own_registry()
        self._push()
        own = self._registry
        pulls = {
            "bayplan": Attempt(run=lambda: self._pull(own, unpack=False)),
            "bayplan, unpacked too": Attempt(run=lambda: self._pull(own, unpack=True)),
        }
        if peers:
            self._docker_registry()
            peer = self._registry
            self._skopeo(layout, f"docker://{peer}/image")
            pulls["skopeo, docker-registry"] = Attempt(
                run=lambda: self._skopeo(f"docker://{peer}/image", f"oci:{self._new('pulled')}:x")
            )
        measure("pull", pulls, rounds)

    def _build(self) -> None:
        request = BuildRequest(context=self._context, tags=("bench:latest",))
        build(request, store=self.store, steps=self._runner, progress=lambda _: None)

    def _fill(self) -> None:
        mark = self._next()
        for number in range(_FILES):
            content = f"{mark} {number}\n" * 40
            (self._context / "files" / f"f{number:03}").write_text(content)

    def _load(self, archive: Path) -> None:
        store = ImageStore(self._new("loaded"))
        with open(archive, "rb", buffering=0) as file:
            for image in load(store, file):
                store.layer_paths(image)

    def _clear(self) -> None:
        """Leave nothing of what was loaded before, as nothing is left of it with docker."""
        for loaded in self.place.glob("loaded-*"):
            shutil.rmtree(loaded)

    def _load_by_command(self, archive: Path) -> None:
        root = str(self._new("loaded"))
        words = ("--root", root, "--run", f"{root}-run", "image", "load", "-q", "-i", str(archive))
        subprocess.run([_BAY, *words], check=True, capture_output=True)

    def _bay(self, *words: str) -> None:
        argv = [_BAY, *self._instance, *words]
        subprocess.run(argv, cwd=self._context, check=True, capture_output=True)

    def _forget(self) -> None:
        """Leave docker nothing: a layer that it has it would not unpack."""
        self._docker("image", "rm", "-f", "bench")
        self._docker("builder", "prune", "-af")
        self._docker("image", "prune", "-af")

    def _own_registry(self) -> None:
        self._serve(sys.executable, "-c", _SERVER, str(self._new("registry")))

    def _docker_registry(self) -> None:
        config = self._new("docker-registry.yml")
        config.write_text(
            "version: 0.1\nlog: {level: info}\nhttp: {addr: '127.0.0.1:0'}\n"
            f"storage: {{filesystem: {{rootdirectory: {self._new('docker-registry')}}}}}\n"
        )
        self._serve("docker-registry", "serve", str(config))

    def _push(self) -> None:
        reference = f"{self._registry}/image:latest"
        asyncio.run(push(reference, store=self.store, source=_BASE, config=RegistryConfig()))

    def _pull(self, registry: str, *, unpack: bool) -> None:
        store = ImageStore(self._new("pulled"))
        reference = f"{registry}/image:latest"
        asyncio.run(pull(reference, store=store, unpack=unpack, config=RegistryConfig()))

    def _serve(self, *argv: str) -> None:
        """Start a registry, and wait until it listens."""
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"127\.0\.0\.1:[1-9]\d*", line):
                self._registry = found[0]
                return
        raise RuntimeError(f"{argv[0]} has ended")

    def _docker(self, *words: str) -> None:
        environ = {**os.environ, "DOCKER_HOST": self.docker_host or "", "DOCKER_BUILDKIT": "1"}
        subprocess.run(["docker", *words], check=True, capture_output=True, env=environ)

    def _buildah(self, *words: str) -> None:
        root = ["--root", str(self.place / "buildah"), "--runroot", str(self.place / "buildah-run")]
        subprocess.run(["buildah", *root, *words], check=True, capture_output=True)

    def _skopeo(self, source: str, target: str) -> None:
        words = ("copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false")
        subprocess.run(["skopeo", *words, source, target], check=True, capture_output=True)

    def _new(self, purpose: str) -> Path:
        return self.place / f"{purpose}-{self._next()}"

    def _next(self) -> int:
        self._number += 1
        return self._number


@contextlib.contextmanager
def _place(directory: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as name:
        try:
            yield Path(name)
        finally:
            # buildah leaves its storage mounted on itself.
            storage = Path(name, "buildah", "overlay")
            while os.path.ismount(storage):
                subprocess.run(["umount", "-l", str(storage)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["builds", "loads", "transfers"])
    parser.add_argument("--docker-host")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--place", default="/var/tmp", help="a directory on the disk to use")
    given = parser.parse_args()
    with _place(given.place) as place, contextlib.ExitStack() as stack:
        bench = Bench(place, given.docker_host, stack)
        for name in given.what:
            getattr(bench, name)(given.rounds)


if __name__ == "__main__":
    main()
