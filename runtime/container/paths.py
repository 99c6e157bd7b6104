"""Where the parts of a container lie. Pure.

`<root>/containers/<id>/` holds what must last, `<run>/containers/<id>/` the monitor's socket.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

# The files of a container by their names, for whoever reads those of all containers at once.
CONFIG = "config.json"
STATE = "state.json"
EXIT = "exit.json"
LOG = "container.log"

_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


def is_id(text: str) -> bool:
    """Whether `text` can name a container, and thus a directory of its own."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Instance:
    """One state directory and its run directory; two instances share nothing."""

    root: Path
    run: Path

    @property
    def tag(self) -> str:
        """A short name that no other instance on this host has, for control groups."""
        return _tag(str(self.root))

    def cgroup(self, id: str, parent: str | None) -> tuple[str, str]:
        """Parent and name of a container's control group, below `parent` where one is asked for."""
        return (parent, f"{self.tag}-{id}") if parent else (self.tag, id)

    @property
    def containers(self) -> Path:
        return self.root / "containers"

    @property
    def seccomp_cache(self) -> Path:
        return self.root / "cache" / "seccomp"

    @property
    def secrets(self) -> Path:
        """Held in memory."""
        return self.run / "secrets"

    @property
    def launcher_socket(self) -> Path:
        return self.run / "launcher.sock"

    @property
    def launcher_log(self) -> Path:
        return self.root / "launcher.log"

    def directory(self, id: str) -> str:
        """That of `container(id)`, by the plainest means: what a keeper touches it holds alone."""
        return f"{self.root}/containers/{id}"

    def container(self, id: str) -> ContainerPaths:
        return ContainerPaths(self.containers / id, self.run / "containers" / id)


@functools.cache
def _tag(root: str) -> str:
    digest = hashlib.sha256(os.path.realpath(root).encode()).hexdigest()
    return f"bayplan-{digest[:8]}"


@dataclass(frozen=True, slots=True)
class ContainerPaths:
    """The files of one container."""

    directory: Path
    run_directory: Path

    @property
    def config(self) -> Path:
        return self.directory / CONFIG

    @property
    def state(self) -> Path:
        """Who runs it, written when it starts."""
        return self.directory / STATE

    @property
    def exit(self) -> Path:
        """How it ended, written once it has."""
        return self.directory / EXIT

    @property
    def socket(self) -> Path:
        return self.run_directory / "monitor.sock"

    @property
    def log(self) -> Path:
        return self.directory / LOG

    @property
    def upper(self) -> Path:
        return self.directory / "upper"

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def empty(self) -> Path:
        """The lower directory of an image without layers."""
        return self._shared / "layer"

    @property
    def place(self) -> Path:
        """The empty directory on which the root is mounted inside the container's namespace."""
        return self._shared / "root"

    @property
    def secrets(self) -> Path:
        """The empty directory on which the secrets' tmpfs is mounted in there."""
        return self._shared / "secrets"

    @property
    def shared(self) -> tuple[Path, ...]:
        """What all containers share: directories that stay empty, as each has mounts of its own.

        A directory is among the dearest things to make where others have just been removed:
        ext4 looks for an inode that was not in use within the last minute.
        """
        return (self.empty, self.place, self.secrets)

    @property
    def _shared(self) -> Path:
        return self.directory.parent / ".empty"

    @property
    def files(self) -> Path:
        return self.directory / "files"
