"""Children of a keeper that nobody waits for: they are killed, and reaped once they are dead.

Some were disowned, as there is no use for them any more. Of others the keeper was never told, as
what brought them forth was killed before it could. A dead one that nobody reaps would keep the
first process of its pid namespace from ending, and so its container (pid_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Set
from pathlib import Path

# Seconds between two looks; nothing tells of their end.
_INTERVAL = 0.05


class Strays:
    """Those of one process."""

    def __init__(self) -> None:
        self._found: set[int] = set()
        self._suspected = False

    @property
    def patience(self) -> float | None:
        """Seconds until `tick` should be called; None where there is nothing to do."""
        return _INTERVAL if self._found or self._suspected else None

    def suspect(self) -> None:
        """There may be one that we know nothing of."""
        self._suspected = True

    def add(self, pid: int) -> None:
        """A child of ours that is to end. Nobody else may wait for it."""
        self._kill(pid)

    def tick(self, known: Set[int], *, quiet: bool) -> set[int]:
        """Those that have been reaped now; whoever is not `known` is a stray, where it is `quiet`:
        no child may have brought forth another of which it has yet to tell."""
        if self._suspected and quiet:
            self._suspected = False
            for pid in _children() - known:
                self._kill(pid)
        reaped = {pid for pid in self._found if _has_gone(pid)}
        self._found -= reaped
        return reaped

    def _kill(self, pid: int) -> None:
        self._found.add(pid)
        # Nobody has waited for it, so the pid is still its own.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _has_gone(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _children() -> set[int]:
    """Those of this process, which has one thread; none on a kernel that does not tell."""
    pid = os.getpid()
    try:
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return set()
