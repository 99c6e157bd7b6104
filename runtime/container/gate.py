"""A start that goes as far as it can and then waits for a word: a gate that somebody holds shut.

The gate is a file that its holder has locked (flock(2)). It opens when the lock goes, and lets
a start through only if the file says so by then: a holder that was killed lets nobody through.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from runtime.container.mounting import step
from runtime.errors import ContainerStartError

_OPEN = b"open"


class Gate:
    """Shut until `open` or `give_up`, of which the first one counts; from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = open(os.open(path, flags, 0o600), "r+b", buffering=0)  # noqa: SIM115 - held
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def open(self) -> None:
        """Let the start through."""
        self._file.write(_OPEN)
        self._file.close()

    def give_up(self) -> None:
        """Let the start fail, unless it was let through before."""
        self._file.close()


def pass_through(path: str) -> None:
    """Wait until the gate opens. Raises ContainerStartError where it was given up."""
    with step("gate", "wait for the gate", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            said = os.read(fd, len(_OPEN))
        finally:
            os.close(fd)
    if said != _OPEN:
        raise ContainerStartError("the start was given up", step="gate")
