"""Starts the daemon again that was killed: it asks the launcher for that while it lives.

A connection that ends without {"op": "release"} is a daemon that ended against its will. It is
started again at once, and after each life shorter than ten seconds with a delay that doubles
from one second to sixty. Runs in the launcher: no threads, no imports of weight.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from runtime.linux import process, sockets

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0
_LONG_ENOUGH = 10.0  # seconds of life after which the next end is not held against it


def delay_after(short_lives: int) -> float:
    """Seconds to wait before the next start, after so many short lives in a row. Pure."""
    if short_lives <= 1:
        return 0.0
    # Beyond some powers the longest delay is reached anyway.
    return min(_FIRST_DELAY * 2.0 ** min(short_lives - 2, 16), _LONGEST_DELAY)


class Guard:
    """At most one daemon; `selector` has each of our descriptors with what to call as its data."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._connection: socket.socket | None = None
        self._request: dict[str, Any] | None = None
        self._child: int | None = None  # a pidfd, until the child has asked in its turn
        self._since = 0.0
        self._short_lives = 0
        self._due: float | None = None

    def take(self, connection: socket.socket, request: dict[str, Any]) -> None:
        """Watch over the daemon at the other end, as {"op": "guard", "argv", "env", "log"} says."""
        if self._child is None:
            self._since = time.monotonic()
        self._drop_connection()
        self._drop_child()
        self._request, self._due = request, None
        connection.settimeout(None)
        self._connection = connection
        self._selector.register(connection, selectors.EVENT_READ, self._on_connection)

    def release(self) -> None:
        """Forget the daemon: its end is meant."""
        self._drop_connection()
        self._drop_child()
        self._request, self._due, self._short_lives = None, None, 0

    def timeout(self) -> float | None:
        """Seconds until `tick` has something to do."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def tick(self) -> None:
        if self._due is not None and time.monotonic() >= self._due:
            self._due = None
            self._start()

    def abandon(self) -> None:
        """Close all descriptors, for a child of the launcher, which guards nothing. The selector
        is left alone: what the kernel keeps of it is the launcher's, too."""
        if self._connection is not None:
            self._connection.close()
        if self._child is not None:
            os.close(self._child)

    def _on_connection(self) -> None:
        assert self._connection is not None
        try:
            message, fds = sockets.receive(self._connection)
        except (EOFError, OSError, ValueError):
            message, fds = {}, []
        for fd in fds:
            os.close(fd)
        self._drop_connection()
        if message.get("op") == "release":
            self.release()
        else:
            self._on_end()

    def _on_child(self) -> None:
        self._drop_child()
        self._on_end()

    def _on_end(self) -> None:
        now = time.monotonic()
        self._short_lives = 1 if now - self._since >= _LONG_ENOUGH else self._short_lives + 1
        delay = delay_after(self._short_lives)
        self._due = now + delay
        print(f"the daemon has ended, it is started again in {delay:g} s", file=sys.stderr)

    def _start(self) -> None:
        request = self._request
        if request is None:
            return
        self._since = time.monotonic()
        argv, env, log = request["argv"], request["env"], request["log"]
        try:
            child = os.fork()
            if child == 0:
                _become(argv, env, log)
            self._child = os.pidfd_open(child)
        except OSError as error:
            # Also one that has ended already: the kernel reaps it, nobody waits for it here.
            print(f"start the daemon: {error}", file=sys.stderr)
            self._on_end()
            return
        self._selector.register(self._child, selectors.EVENT_READ, self._on_child)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._selector.unregister(self._connection)
            self._connection.close()
            self._connection = None

    def _drop_child(self) -> None:
        if self._child is not None:
            self._selector.unregister(self._child)
            os.close(self._child)
            self._child = None


def _become(argv: Sequence[str], env: Mapping[str, str], log: str) -> NoReturn:
    """Execute the daemon in this child, with none of the launcher's own ways."""
    try:
        os.setsid()
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
            score.write("0")
        null = os.open("/dev/null", os.O_RDONLY)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        process.close_from(3)
        os.chdir("/")
        os.execve(argv[0], list(argv), dict(env))
    except BaseException as error:
        print(f"start the daemon: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(1)
