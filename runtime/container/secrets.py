"""Keeps what secret files hold, between create and start, in memory: never on a disk.

One file a container, on a tmpfs below the run directory. It is gone after a reboot, as the run
directory itself is; who made the container gives it again (`Containers.update`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from runtime.container.config import ContainerConfig
from runtime.linux import files, mounts


class Secrets:
    def __init__(self, directory: Path, lock: Path) -> None:
        """Below `directory`, which is made when it is needed; `lock` guards its mount."""
        self._directory = directory
        self._lock = lock

    def keep(self, config: ContainerConfig, *, empty: bool) -> None:
        """Remember the secrets of `config`; whether also where none of them has a content."""
        given = {file.target: file.content for file in config.files if file.secret}
        if not (empty or any(given.values())):
            return
        if not given:
            return
        with files.locked(self._lock):
            self._mount()
            content = {**self.of(config.id), **given}
            path = self._directory / config.id
            files.write_atomically(path, json.dumps(content).encode(), mode=0o600, durable=False)

    def of(self, id: str) -> Mapping[str, str]:
        """The contents by target, of those that are known."""
        try:
            return dict(json.loads((self._directory / id).read_bytes()))
        except (FileNotFoundError, ValueError):
            return {}

    def names(self) -> list[str]:
        """The ids of the containers that have secrets here."""
        try:
            return os.listdir(self._directory)
        except FileNotFoundError:
            return []

    def forget(self, id: str) -> None:
        (self._directory / id).unlink(missing_ok=True)

    def close(self) -> None:
        """Take the file system down when there is nothing in it."""
        with files.locked(self._lock):
            if self.names():
                return
            with contextlib.suppress(OSError):
                mounts.unmount(str(self._directory))
            with contextlib.suppress(OSError):
                self._directory.rmdir()

    def _mount(self) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        mounts.hold_in_memory(str(self._directory), "secrets")
