"""All containers of one instance: create, start, signal, exec, watch, delete.

Safe for several threads and processes: each container's directory has a lock, and what is on
disk is the truth. Calls block for as long as their system calls do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from runtime.cgroups.manager import Cgroup, Usage, check_parent, open_cgroup, remove_parent
from runtime.container import sessions
from runtime.container.bind_sources import create_sources as create_sources
from runtime.container.config import ContainerConfig, ExecConfig
from runtime.container.launcher_client import LauncherClient
from runtime.container.paths import ContainerPaths, Instance, is_id
from runtime.container.provided_files import rewrite
from runtime.container.record import (
    StartRecord,
    read_exit,
    read_start,
    write_exit,
)
from runtime.container.remains import end_remains
from runtime.container.secrets import Secrets
from runtime.container.seed import wants_seed
from runtime.container.states import ContainerState as ContainerState
from runtime.container.states import look, lost_exit
from runtime.errors import (
    AlreadyExists,
    ContainerStartError,
    InvalidState,
    NotFound,
    RuntimeFault,
)
from runtime.linux import files, process
from runtime.removal import discard

# In seconds: what a monitor writes takes none of them.
_DRAFT_AGE = 60.0


class Containers:
    """The containers below `root`, with their sockets below `run`."""

    def __init__(self, root: Path, run: Path) -> None:
        self._instance = Instance(root, run)
        self._launcher = LauncherClient(self._instance)
        self._secrets = Secrets(self._instance.secrets, root / "secrets.lock")
        self._instance.containers.mkdir(parents=True, exist_ok=True, mode=0o710)
        run.mkdir(parents=True, exist_ok=True, mode=0o711)
        _make_shared(self._paths("any"))

    # --- life ------------------------------------------------------------------------------

    def create(self, config: ContainerConfig) -> None:
        """Write down what to run; nothing runs yet. Raises AlreadyExists."""
        if not is_id(config.id):
            raise RuntimeFault(
                f"container id {config.id!r} is not valid",
                hint="a letter or digit, then letters, digits, dots, dashes and underscores",
            )
        if config.cgroup_parent is not None:
            check_parent(config.cgroup_parent)
        paths = self._paths(config.id)
        with files.locked(self._lock(config.id)):
            if paths.directory.exists():
                raise AlreadyExists("container", config.id)
            draft = Path(
                tempfile.mkdtemp(prefix=f".new-{config.id}.", dir=self._instance.containers)
            )
            try:
                self._furnish(ContainerPaths(draft, paths.run_directory), config)
                self._secrets.keep(config, empty=True)
                draft.rename(paths.directory)
            except BaseException:
                self._secrets.forget(config.id)
                shutil.rmtree(draft, ignore_errors=True)
                raise

    def _furnish(self, paths: ContainerPaths, config: ContainerConfig) -> None:
        paths.directory.chmod(0o710)
        for directory in (paths.work, paths.files):
            directory.mkdir()
        # The upper directory is the container's "/" and takes the mode of the image's.
        paths.upper.mkdir(mode=0o755)
        if config.layers and config.upper is None:
            top = os.stat(config.layers[-1])
            os.chown(paths.upper, top.st_uid, top.st_gid)
            os.chmod(paths.upper, top.st_mode & 0o7777)
        for number, file in enumerate(config.files):
            if not file.secret:
                path = paths.files / str(number)
                path.write_text(file.content)
                os.chown(path, file.uid, file.gid)
                path.chmod(file.mode)
        content = _without_secrets(config).to_json().encode()
        files.write_atomically(paths.config, content, mode=0o600, durable=False)

    def start(self, id: str) -> ContainerState:
        """Run a created or exited container; returns once its program has been executed.

        Raises InvalidState when it runs already, ContainerStartError when it cannot be.
        """
        paths = self._paths(id)
        with self._exclusive(id):
            state = self.get(id)
            if state.status in ("running", "paused"):
                raise InvalidState(f"container {id[:12]}", state.status, "start")
            self._repair(id)
            config = self.config(id)
            create_sources(config)
            _make_shared(paths)
            # In this order: a start record without an exit tells of a run that was lost.
            paths.state.unlink(missing_ok=True)
            paths.exit.unlink(missing_ok=True)
            with contextlib.ExitStack() as held:
                if wants_seed(config):
                    held.enter_context(files.locked(self._instance.containers / ".seed"))
                secrets = self._secrets_for(config)
                answer = self._launcher.start(
                    {"op": "start", "id": id, "group": config.group, "secrets": secrets}
                )
            if "error" in answer:
                raise sessions.start_error(answer["error"])
        started = StartRecord(**answer["started"])
        return ContainerState(
            id=id, status="running", pid=started.pid, started_at=started.started_at
        )

    def signal(self, id: str, number: int) -> None:
        """Send a signal to the first process; raises InvalidState when it does not run."""
        with self._first_process(id) as (pidfd, _record):
            try:
                process.send_signal(pidfd, number)
            except ProcessLookupError as error:
                raise InvalidState(f"container {id[:12]}", "not running", "signal") from error

    def would_ignore(self, id: str, number: int) -> bool:
        """Whether the kernel would drop this signal: the first process of a pid namespace gets
        no signal that it neither catches nor blocks (pid_namespaces(7))."""
        config = self.config(id)
        # An init waits for signals in a way that its masks do not show (sigwait(3)).
        if number == signal.SIGKILL or config.pid_namespace != "private" or config.init:
            return False
        with self._first_process(id) as (_pidfd, record):
            return not process.handles_signal(record.pid, number)

    def pause(self, id: str, paused: bool) -> None:
        state = self.get(id)
        if state.status != ("running" if paused else "paused"):
            raise InvalidState(
                f"container {id[:12]}", state.status, "pause" if paused else "unpause"
            )
        self._cgroup(id).freeze(paused)

    def update(self, id: str, config: ContainerConfig) -> None:
        """Change the limits, labels and stop settings of a container; the rest must be equal.

        Secrets that have a content are taken over: after a reboot they have to be given again.
        """
        with self._exclusive(id):
            if self.get(id).status in ("running", "paused"):
                self._cgroup(id).update(config.resources, self.config(id).resources)
            self._secrets.keep(config, empty=False)
            content = _without_secrets(config).to_json().encode()
            files.write_atomically(self._paths(id).config, content, mode=0o600)

    def rewrite_file(self, id: str, target: str, content: str) -> None:
        """Change one of the files that the runtime provides, also while the container runs; lines
        that something in it has added stay. One that it has not, or a secret, is left alone."""
        with self._exclusive(id):
            config, paths = self.config(id), self._paths(id)
            for number, file in enumerate(config.files):
                if file.target != target or file.secret or file.content == content:
                    continue
                rewrite(paths.files / str(number), file.content, content)
                changed = list(config.files)
                changed[number] = dataclasses.replace(file, content=content)
                described = config.replace(files=tuple(changed)).to_json().encode()
                files.write_atomically(paths.config, described, mode=0o600)

    def delete(self, id: str, *, force: bool = False) -> None:
        """Remove a container and its writable layer. Raises InvalidState while it runs.

        With `force` it is killed first. Removing what is not there is NotFound.
        """
        paths = self._paths(id)
        with self._exclusive(id):
            state = self.get(id)
            if state.status in ("running", "paused"):
                if not force:
                    raise InvalidState(f"container {id[:12]}", state.status, "remove")
                self._kill_and_wait(id)
            self._repair(id)
            # A name of its own: one of a removal that was cut short may still lie there.
            doomed = Path(tempfile.mkdtemp(prefix=".gone-", dir=self._instance.containers))
            paths.directory.rename(doomed)
            self._secrets.forget(id)
            # Still locked, so that who waits sees that it holds a lock on nothing.
            self._lock(id).unlink(missing_ok=True)
        discard(doomed)  # a sweep may be removing it at the same time

    def _kill_and_wait(self, id: str) -> None:
        with contextlib.suppress(InvalidState), self.watch(id) as connection:
            with contextlib.suppress(InvalidState):
                self.signal(id, signal.SIGKILL)
            with contextlib.suppress(RuntimeFault):
                self._cgroup(id).freeze(False)
            sessions.read_watch(connection)

    # --- what is there ---------------------------------------------------------------------

    def get(self, id: str) -> ContainerState:
        """Raises NotFound."""
        state = look(self._instance, id) if is_id(id) else None
        if state is None:
            raise NotFound("container", id)
        return state

    def list(self) -> Sequence[ContainerState]:
        states = []
        for entry in sorted(self._instance.containers.iterdir()):
            if not entry.name.startswith("."):
                with contextlib.suppress(NotFound):
                    states.append(self.get(entry.name))
        return states

    def config(self, id: str) -> ContainerConfig:
        """Raises NotFound, and RuntimeFault for a description that a power cut has damaged."""
        try:
            return ContainerConfig.from_json(self._paths(id).config.read_bytes())
        except FileNotFoundError as error:
            raise NotFound("container", id) from error
        except (ValueError, TypeError) as error:
            raise RuntimeFault(
                f"the description of container {id[:12]} is damaged",
                hint="remove the container and create it again",
            ) from error

    def log_path(self, id: str) -> Path:
        return self._paths(id).log

    def monitor_socket(self, id: str) -> Path:
        return self._paths(id).socket

    def upper(self, id: str) -> Path:
        """The writable layer, in overlayfs form."""
        return self._paths(id).upper

    def usage(self, id: str) -> Usage:
        """Raises InvalidState when it does not run."""
        try:
            return self._cgroup(id).usage()
        except OSError as error:
            raise InvalidState(f"container {id[:12]}", "not running", "measure") from error

    def processes(self, id: str) -> Sequence[int]:
        """The host's pids of all processes of a container."""
        return self._cgroup(id).processes()

    # --- sessions --------------------------------------------------------------------------

    def exec(self, id: str, config: ExecConfig, *, told: bool = True) -> sessions.ExecSession:
        """Run a further process; who watches hears of it where it is `told`. Raises NotFound,
        InvalidState, ContainerStartError."""
        state = self.get(id)
        if state.status != "running":
            raise InvalidState(f"container {id[:12]}", state.status, "execute in")
        return sessions.open_exec(str(self._paths(id).socket), config, told=told)

    def hold(self, id: str) -> contextlib.AbstractContextManager[None]:
        """A running container is frozen in the block, and not after this process has ended."""
        return sessions.hold(str(self._paths(id).socket))

    def watch(self, id: str, *, execs: bool = False, end: bool = False) -> socket.socket:
        """A connection that becomes readable once the exit is recorded (`sessions.read_watch`),
        with `execs` before that at each start and end of one (`sessions.read_exec`), and with
        `end` once the container has ended (`sessions.read_end`).

        Raises InvalidState when the container does not run.
        """
        return sessions.open_watch(str(self._paths(id).socket), execs=execs, end=end)

    def held(self, id: str) -> contextlib.AbstractContextManager[None]:
        """Keep a container as it is: nobody starts, changes or removes it. Raises NotFound."""
        return self._exclusive(id)

    # --- upkeep ----------------------------------------------------------------------------

    def settle_lost(self, id: str) -> None:
        """Record the end of a container that was lost, and clear what is left of its run."""
        with self._exclusive(id):
            self._repair(id)

    def end_remains(self, id: str, *, cgroup_parent: str | None = None) -> None:
        """End and clear what runs of a container whose directory somebody has removed."""
        if self._paths(id).config.exists():
            return
        with files.locked(self._lock(id)):
            end_remains(self._instance, id, cgroup_parent)
            self._secrets.forget(id)
            self._lock(id).unlink(missing_ok=True)

    def sweep(self) -> Sequence[str]:
        """Finish what a crash has left half done; the ids of containers that were lost.

        A container is lost when its monitor was killed: the kernel has ended it, and nobody
        was there to record it. A launcher that is not what we would start today is let go too.
        """
        self._launcher.retire()
        for entry in list(self._instance.containers.iterdir()):
            if entry.name.startswith(".gone-"):
                with contextlib.suppress(OSError, RuntimeFault):
                    discard(entry)
            elif entry.name.startswith(".new-"):
                id = entry.name.removeprefix(".new-").rpartition(".")[0]
                with files.locked(self._lock(id)):
                    shutil.rmtree(entry, ignore_errors=True)
                self._drop_lock(id)
            elif entry.name.startswith(".lock-"):
                self._drop_lock(entry.name.removeprefix(".lock-"))
        for id in self._secrets.names():
            with files.locked(self._lock(id)):
                if not self._paths(id).directory.exists():
                    self._secrets.forget(id)
            self._drop_lock(id)
        lost = []
        for state in self.list():
            with contextlib.suppress(FileNotFoundError):  # removed by somebody else meanwhile
                files.remove_drafts(self._paths(state.id).directory, age=_DRAFT_AGE)
            if state.status not in ("created", "exited") or not _remains(self._paths(state.id)):
                continue
            # A damaged description tells nothing of a start that was cut short.
            with contextlib.suppress(RuntimeFault), self._exclusive(state.id):
                if self._repair(state.id):
                    lost.append(state.id)
        return lost

    def close(self) -> None:
        """End the launcher when no container runs; what runs keeps its monitor and stays."""
        if any(state.status in ("running", "paused") for state in self.list()):
            return
        self._launcher.end()
        with contextlib.suppress(OSError):
            remove_parent(self._instance.tag)
        with contextlib.suppress(OSError):
            (self._instance.run / "containers").rmdir()
        self._secrets.close()

    def _repair(self, id: str) -> bool:
        """Clear what a lost run, or a start that was cut short, has left; whether there was a
        run whose end is recorded by this."""
        paths = self._paths(id)
        if _remains(paths) is None or (claimed := self._claim(id)) is None:
            return False
        try:
            # Whoever held the claim may have recorded the end, or run it again.
            remains = _remains(paths)
            if remains is None:
                return False
            started = read_start(paths.state)
            parent = started.cgroup_parent if started else self.config(id).cgroup_parent
            cgroup = open_cgroup(*self._instance.cgroup(id, parent))
            with contextlib.suppress(RuntimeFault):
                cgroup.kill()
            with contextlib.suppress(RuntimeFault):
                cgroup.remove()
            shutil.rmtree(paths.run_directory, ignore_errors=True)
        finally:
            os.close(claimed)
        if started is not None:
            write_exit(paths.exit, lost_exit(started, paths.log, settled=True))
        return remains == "lost"

    def _claim(self, id: str) -> int | None:
        """What a monitor holds for as long as it lives; None while there is one."""
        with contextlib.suppress(FileNotFoundError):
            return files.try_lock_directory(self._paths(id).directory)
        return None

    def _secrets_for(self, config: ContainerConfig) -> dict[str, str]:
        """What the launcher is told of secrets, by target."""
        wanted = [file.target for file in config.files if file.secret]
        known = self._secrets.of(config.id) if wanted else {}
        missing = [target for target in wanted if target not in known]
        if missing:
            raise ContainerStartError(
                f"secret {missing[0]} is gone: it was kept in memory, before the host was started",
                step="secret",
                hint="create the container again",
            )
        return dict(known)

    def guard(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> socket.socket:
        """Have a daemon started again by this command when the connection that is given back
        ends without `release_guard`. Raises LauncherError."""
        return self._launcher.guard(argv, env, log)

    def release_guard(self, connection: socket.socket) -> None:
        """The daemon ends because it is meant to."""
        self._launcher.release_guard(connection)

    # --- small things ----------------------------------------------------------------------

    def _paths(self, id: str) -> ContainerPaths:
        if not is_id(id):
            raise NotFound("container", id)
        return self._instance.container(id)

    def _lock(self, id: str) -> Path:
        return self._instance.containers / f".lock-{id}"

    @contextlib.contextmanager
    def _exclusive(self, id: str) -> Iterator[None]:
        """Hold the lock of a container that exists. Raises NotFound."""
        if not self._paths(id).config.exists():
            raise NotFound("container", id)
        with files.locked(self._lock(id)):
            if not self._paths(id).config.exists():
                self._lock(id).unlink(missing_ok=True)
                raise NotFound("container", id)
            yield

    def _drop_lock(self, id: str) -> None:
        """Remove the lock of a container that a crash kept from being made or fully removed."""
        with files.locked(self._lock(id)):
            if not self._paths(id).directory.exists():
                self._lock(id).unlink(missing_ok=True)

    def _cgroup(self, id: str) -> Cgroup:
        """The group of the present run, or the last one."""
        started = read_start(self._paths(id).state)
        return open_cgroup(*self._instance.cgroup(id, started.cgroup_parent if started else None))

    @contextlib.contextmanager
    def _first_process(self, id: str) -> Iterator[tuple[int, StartRecord]]:
        started = read_start(self._paths(id).state)
        state = self.get(id)
        pidfd = None
        if started is not None and state.status in ("running", "paused"):
            pidfd = process.open_pidfd(started.pid, started.pid_started)
        if pidfd is None or started is None:
            raise InvalidState(f"container {id[:12]}", "not running", "signal")
        try:
            yield pidfd, started
        finally:
            os.close(pidfd)


def _remains(paths: ContainerPaths) -> Literal["lost", "half"] | None:
    """What is there to repair: a run that nobody has seen the end of, half a start, or nothing."""
    started = read_start(paths.state)
    if started is None:
        return "half" if paths.run_directory.exists() else None
    # In this order: who records an exit ends after that.
    if started.alive() or read_exit(paths.exit) is not None:
        return None
    return "lost"


def _make_shared(paths: ContainerPaths) -> None:
    for directory in paths.shared:
        directory.mkdir(parents=True, exist_ok=True)


def _without_secrets(config: ContainerConfig) -> ContainerConfig:
    if not any(file.secret for file in config.files):
        return config
    kept = (dataclasses.replace(file, content="") if file.secret else file for file in config.files)
    return config.replace(files=tuple(kept))
