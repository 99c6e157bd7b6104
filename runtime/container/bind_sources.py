"""The host directories that binds may make (Compose `create_host_path`)."""

from __future__ import annotations

import contextlib
import os

from runtime.container.config import ContainerConfig, Mount
from runtime.errors import RuntimeFault
from runtime.linux import files


def create_sources(config: ContainerConfig) -> None:
    """Make the host directories that a bind may make (Compose `create_host_path`)."""
    for mount in config.mounts:
        if mount.create_source:
            try:
                _create_source(mount)
            except FileExistsError:
                continue  # a file is as good
            except OSError as error:
                raise RuntimeFault(
                    f"create {mount.source}: {(error.strerror or '').lower()}"
                ) from error


def _create_source(mount: Mount) -> None:
    if not mount.beneath:
        os.makedirs(mount.source, exist_ok=True)
        return
    top = os.open(mount.beneath, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = os.path.relpath(mount.source, mount.beneath)
        with contextlib.suppress(NotADirectoryError):  # a file is as good
            os.close(files.make_directories_in_root(top, path))
    finally:
        os.close(top)
