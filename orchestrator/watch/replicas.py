"""The containers of one service as places to write files to and to run commands in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.engine.commands import run_command
from orchestrator.engine.errors import ContainerGone
from orchestrator.engine.monitors import ExecConfig
from orchestrator.engine.sync import ContainerFiles, Delete, Put, Synced
from orchestrator.watch.daemon import Daemon, Superseded
from orchestrator.watch.rules import Command

__all__ = ["CommandFailed", "ContainerGone", "Replicas"]

_AT_ONCE = 256  # changes between two looks at whether they are still wanted


class CommandFailed(Exception):
    """A command of sync+exec ended with another status than 0."""

    def __init__(self, container: str, argv: Sequence[str], status: int) -> None:
        super().__init__(f"{' '.join(argv)} exited with {status} in {container}")
        self.hint: str | None = None


class Replicas:
    """What the daemon last said about the service's containers. For one thread."""

    def __init__(self, service: str, daemon: Daemon, root: Path, run: Path) -> None:
        self._service = service
        self._daemon = daemon
        self._root = root
        self._run = run
        self._containers: list[dict[str, Any]] | None = None

    def forget(self) -> None:
        """Ask the daemon again before the next use."""
        self._containers = None

    @property
    def containers(self) -> list[dict[str, Any]]:
        if self._containers is None:
            self._containers = self._daemon.containers(self._service)
        return self._containers

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(str(container["id"]) for container in self.containers)

    @property
    def images(self) -> frozenset[str]:
        return frozenset(str(container["image_id"]) for container in self.containers)

    def standing(self) -> str:
        """What of the service runs, in words; nothing where that cannot be known at once."""
        found = self._daemon.glance(self._service)
        if found is None:
            return ""
        running = [c["name"] for c in found if c["state"] == "running"]
        return f"{', '.join(running)} still runs as before" if running else "nothing of it runs"

    def apply(
        self, changes: Sequence[Put | Delete], ids: Iterable[str], wanted: Callable[[], bool]
    ) -> Synced:
        """Make the changes in these containers; one that is gone meanwhile is left out.

        Raises Superseded as soon as they are not wanted any more, and errors of the host.
        """
        written = deleted = size = 0
        skipped: list[tuple[str, str]] = []
        for id in sorted(ids):
            try:
                for start in range(0, len(changes), _AT_ONCE):
                    if not wanted():
                        raise Superseded
                    done = self._of(id).apply(changes[start : start + _AT_ONCE])
                    written += done.written
                    deleted += done.deleted
                    size += done.bytes
                    skipped += done.skipped
            except ContainerGone:
                self.forget()
        return Synced(
            written=written, deleted=deleted, bytes=size, skipped=tuple(dict.fromkeys(skipped))
        )

    def differing(self, puts: Sequence[Put], id: str) -> list[Put]:
        """Those that would change something there. Raises ContainerGone, and errors of the host."""
        return self._of(id).differing(puts)

    def execute(
        self, command: Command, tell: Callable[[str], None], wanted: Callable[[], bool]
    ) -> int:
        """Run a command in each running container, one after the other; in how many it ran.

        Raises CommandFailed, ContainerStartError, Superseded.
        """
        ran = 0
        config = ExecConfig(
            argv=command.argv,
            env=command.environment,
            cwd=command.working_dir or None,
            user=command.user or None,
            privileged=command.privileged,
        )
        self.forget()
        for container in self.containers:
            if container["state"] != "running":
                continue
            status = run_command(container["monitor_socket"], config, tell, wanted)
            if status is None:
                raise Superseded
            if status:
                raise CommandFailed(container["name"], command.argv, status)
            ran += 1
        return ran

    def _of(self, id: str) -> ContainerFiles:
        return ContainerFiles(self._root, self._run, id)
