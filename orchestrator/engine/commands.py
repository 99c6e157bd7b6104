"""Runs a command in a container line by line, until it ends or is not wanted any more."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable

from orchestrator.engine.probes import end_process
from runtime.container.config import ExecConfig
from runtime.container.sessions import ExecSession, open_exec
from runtime.linux import process

_BLOCK = 64 * 1024
_LOOK = 0.2  # seconds between two looks at whether it is still wanted


def run_command(
    monitor_socket: str,
    config: ExecConfig,
    tell: Callable[[str], None],
    wanted: Callable[[], bool],
) -> int | None:
    """Its exit status; None where it was killed because it is not wanted any more. `tell` gets
    the lines of both its streams.

    Raises InvalidState where the container does not run, ContainerStartError, LauncherError.
    """
    with open_exec(monitor_socket, config) as session:
        identity = process.start_time(session.pid)
        lines = _Lines(tell)
        pipes = [fd for fd in (session.stdout, session.stderr) if fd is not None]
        with selectors.DefaultSelector() as selector:
            selector.register(session, selectors.EVENT_READ)
            for fd in pipes:
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ)
            while not _ended(session, selector, lines):
                if not wanted():
                    end_process(session.pid, identity)
                    session.wait()
                    return None
        # What it has left running may hold the pipes open: only what is there is taken.
        for fd in pipes:
            lines.read(fd)
        lines.end()
        return session.wait()


def _ended(session: ExecSession, selector: selectors.BaseSelector, lines: _Lines) -> bool:
    ended = False
    for key, _ in selector.select(_LOOK):
        if key.fileobj is session:
            ended = True
        elif not lines.read(key.fd):
            selector.unregister(key.fd)
    return ended


class _Lines:
    """Cuts what comes through pipes into lines."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._pending: dict[int, bytes] = {}

    def read(self, fd: int) -> bool:
        """Take what is there; False at the end of the pipe."""
        while True:
            try:
                piece = os.read(fd, _BLOCK)
            except BlockingIOError:
                return True
            if not piece:
                return False
            *lines, rest = (self._pending.get(fd, b"") + piece).split(b"\n")
            self._pending[fd] = rest
            for line in lines:
                self._tell(line.decode(errors="replace"))

    def end(self) -> None:
        for rest in self._pending.values():
            if rest:
                self._tell(rest.decode(errors="replace"))
