"""Runs RUN steps as containers."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from runtime.build.steps import Network, RunStep
from runtime.container import sessions
from runtime.container.config import ContainerConfig, File, LogConfig, Resources
from runtime.container.containers import Containers
from runtime.container.log_reader import LogFollower
from runtime.errors import BuildError, InvalidState, NotFound, RuntimeFault, Unsupported
from runtime.images.merged import MergedTree, split
from runtime.removal import passing_directory

_HOSTNAME = "build"
_LOG = LogConfig(max_size=64 * 1024 * 1024, max_files=2)
_BASE_PLACES = "mount-places"
_LOOK = 1.0
_CANCELED = "the build was canceled"


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
        with (
            self._waker() as waker,
            step.stop.calling(functools.partial(os.eventfd_write, waker, 1)),
            self._open_network(step.network) as network,
            _mount_places(self._scratch, step) as places,
        ):
            config = self._config(step, network, places)
            self._containers.create(config)
            try:
                return self._watch(config.id, waker, output)
            finally:
                with contextlib.suppress(NotFound):
                    self._containers.delete(config.id, force=True)

    def _watch(self, id: str, waker: int, output: Callable[[bytes], None]) -> int:
        with _following(self._containers.log_path(id)) as log:
            self._containers.start(id)
            with contextlib.ExitStack() as stack:
                waited = [log.fileno(), waker]
                watch = None
                with contextlib.suppress(InvalidState, ConnectionError):  # it is just ending
                    watch = stack.enter_context(self._containers.watch(id))
                    waited.append(watch.fileno())
                while not log.ended():
                    # Without a connection the record's file wakes us, or a look now and then
                    # where a killed monitor will write none.
                    ready, _, _ = select.select(waited, [], [], None if watch else _LOOK)
                    if waker in ready:
                        raise BuildError(_CANCELED)
                    _emit(log, output)
                    if watch is not None and watch.fileno() in ready:
                        if sessions.read_watch(watch) is not None:
                            break
                        waited.remove(watch.fileno())  # it closed before the record was there
                        watch = None
                    if not ready and self._containers.get(id).exit_code is not None:
                        break
            _emit(log, output)
        state = self._containers.get(id)
        if state.exit_code is None:
            raise RuntimeFault(f"the build step {id} ended without an exit code")
        if state.oom_killed:
            output(b"the step ran out of memory and was killed\n")
        return state.exit_code

    def _config(self, step: RunStep, network: StepNetwork, places: Path) -> ContainerConfig:
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
        )
        return config if step.shm_size is None else config.replace(shm_size=step.shm_size)

    @contextlib.contextmanager
    def _waker(self) -> Iterator[int]:
        waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            with self._mutex:
                if self._canceled:
                    raise BuildError(_CANCELED)
                self._wakers.add(waker)
            try:
                yield waker
            finally:
                with self._mutex:
                    self._wakers.discard(waker)
        finally:
            os.close(waker)


@contextlib.contextmanager
def _following(path: Path) -> Iterator[LogFollower]:
    log = LogFollower(path, from_start=True)
    try:
        yield log
    finally:
        # The kernel lets go of an inotify instance after a grace period: 10 ms or more, in
        # which the next step can begin.
        threading.Thread(target=log.close, name="log close").start()


def _emit(log: LogFollower, output: Callable[[bytes], None]) -> None:
    entries = log.read()
    if entries:
        output("".join(entry.text for entry in entries).encode())


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
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
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
