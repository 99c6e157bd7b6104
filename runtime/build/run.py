"""Runs RUN steps as containers."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from runtime.build.scratch import GATE
from runtime.build.step_container import CANCELED, StepContainer
from runtime.build.steps import Network, RunStep
from runtime.container.config import ContainerConfig, File, LogConfig, Resources
from runtime.container.containers import Containers
from runtime.container.gate import Gate
from runtime.errors import BuildError, NotFound, Unsupported
from runtime.images.merged import MergedTree, split
from runtime.removal import passing_directory

_HOSTNAME = "build"
_LOG = LogConfig(max_size=64 * 1024 * 1024, max_files=2)
_BASE_PLACES = "mount-places"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNetwork:
    """A step's network: the path of its namespace (None: the host's), and its files."""

    netns: str | None
    resolv_conf: str
    hosts: str


OpenNetwork = Callable[[Network], AbstractContextManager[StepNetwork]]
"""Opens a network for the length of one step."""


@contextlib.contextmanager
def host_network(kind: Network) -> Iterator[StepNetwork]:
    """The host's own network, for builds without a bridge; `none` cannot be had here."""
    if kind == "none":
        raise Unsupported("a step without a network needs a network namespace")
    if kind not in ("default", "host"):
        raise Unsupported(f"the network {kind} cannot be had here")
    resolv_conf = Path("/etc/resolv.conf")
    yield StepNetwork(
        netns=None,
        resolv_conf=resolv_conf.read_text() if resolv_conf.exists() else "",
        hosts="127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    )


class ContainerStepRunner:
    """Runs steps in containers of `containers`.

    `open_network` gives each step its network; `scratch` is a directory for the places that
    mounts need in an image that lacks them. Steps may run at once, in several threads.
    """

    def __init__(self, containers: Containers, *, open_network: OpenNetwork, scratch: Path) -> None:
        self._containers = containers
        self._open_network = open_network
        self._scratch = scratch
        self._group = f"build-{secrets.token_hex(8)}"
        _base_places(scratch / _BASE_PLACES)
        self._mutex = threading.Lock()
        self._wakers: set[int] = set()
        self._canceled = False

    def cancel(self) -> None:
        """Kill what runs, and let nothing start any more; from any thread."""
        with self._mutex:
            self._canceled = True
            for waker in self._wakers:
                os.eventfd_write(waker, 1)

    def run(self, step: RunStep, output: Callable[[bytes], None]) -> int:
        """See `StepRunner.run`; raises BuildError once canceled."""
        with contextlib.closing(self.ready(step)) as container:
            container.begin()
            return container.run(output)

    def ready(self, step: RunStep) -> StepContainer:
        """See `ForesightedRunner.ready`."""
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        gate = Gate(self._scratch / f"{GATE}{secrets.token_hex(8)}")
        return StepContainer(
            self._containers,
            self._made(step, gate),
            gate=gate,
            waker=self._waker,
            stop=step.stop,
        )

    @contextlib.contextmanager
    def _made(self, step: RunStep, gate: Gate) -> Iterator[str]:
        with (
            self._open_network(step.network) as network,
            _mount_places(self._scratch, step) as places,
        ):
            config = self._config(step, network, places, gate)
            self._containers.create(config)
            try:
                yield config.id
            finally:
                with contextlib.suppress(NotFound):
                    self._containers.delete(config.id, force=True)

    def _config(
        self, step: RunStep, network: StepNetwork, places: Path, gate: Gate
    ) -> ContainerConfig:
        extra = "".join(f"{address}\t{name}\n" for name, address in step.extra_hosts)
        files = (
            File(target="/etc/hosts", content=network.hosts + extra),
            File(target="/etc/resolv.conf", content=network.resolv_conf),
            File(target="/etc/hostname", content=f"{_HOSTNAME}\n"),
            *step.files,
        )
        config = ContainerConfig(
            id=f"build-{secrets.token_hex(8)}",
            layers=(str(places), *step.layers),
            argv=step.argv,
            env=step.env,
            cwd=step.cwd,
            user=step.user,
            hostname=_HOSTNAME,
            netns=network.netns,
            mounts=step.mounts,
            tmpfs=step.tmpfs,
            files=files,
            ulimits=step.ulimits,
            resources=Resources(memory=step.memory),
            privileged=step.privileged,
            log=_LOG,
            upper=str(step.upper),
            work=str(step.work),
            volatile=True,
            gate=str(gate.path),
            group=self._group,
        )
        return config if step.shm_size is None else config.replace(shm_size=step.shm_size)

    @contextlib.contextmanager
    def _waker(self) -> Iterator[int]:
        waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            with self._mutex:
                if self._canceled:
                    raise BuildError(CANCELED)
                self._wakers.add(waker)
            try:
                yield waker
            finally:
                with self._mutex:
                    self._wakers.discard(waker)
        finally:
            os.close(waker)


def _base_places(directory: Path) -> None:
    for name in ("proc", "sys", "dev", "etc"):
        (directory / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in ("hosts", "hostname", "resolv.conf"):
        (directory / "etc" / name).touch(mode=0o644)


@contextlib.contextmanager
def _mount_places(scratch: Path, step: RunStep) -> Iterator[Path]:
    """The lowest layer of a step: places to mount on, so that none is made in the result."""
    wanted = [(mount.target, os.path.isdir(mount.source)) for mount in step.mounts]
    wanted += [(mount.target, True) for mount in step.tmpfs]
    wanted += [(file.target, False) for file in step.files]
    if not wanted:
        yield scratch / _BASE_PLACES
        return
    with (
        passing_directory(scratch, "places-") as places,
        MergedTree(step.layers) as tree,
    ):
        places.chmod(0o755)
        _base_places(places)
        for target, is_directory in wanted:
            parts = tree.resolve(split(os.fsencode(target)))
            path = places.joinpath(*map(os.fsdecode, parts))
            if b".." in parts or path.exists():
                continue
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if is_directory:
                path.mkdir(mode=0o755)
            else:
                path.touch(mode=0o644)
        yield places
