"""A directory for what must never be on a disk."""

from __future__ import annotations

import contextlib
from pathlib import Path

from runtime.linux import mounts


def hold_in_memory(directory: Path) -> None:
    """Make `directory`, and see to it that what is written there stays in memory.

    Raises OSError where it lies on a disk and nothing can be mounted.
    """
    directory.mkdir(parents=True, mode=0o700, exist_ok=True)
    mounts.hold_in_memory(str(directory), "decrypted")


def let_go(directory: Path) -> None:
    """Remove the directory and what was mounted there; one that is in use stays."""
    with contextlib.suppress(OSError):
        mounts.unmount(str(directory))
    with contextlib.suppress(OSError):
        directory.rmdir()
