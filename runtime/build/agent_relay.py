"""A socket with an owner and a mode of its own that leads to an ssh agent's.

`RUN --mount=type=ssh,uid=…,gid=…,mode=…` must not change the socket of the person's agent.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 65536
_MOST = 64
"""Connections at once; who comes then waits."""
_PATIENCE = 30.0
"""Seconds for a message to be taken by whom it is for."""


@contextlib.contextmanager
def relayed(agent: str, path: Path, *, uid: int, gid: int, mode: int) -> Iterator[None]:
    """Have the new socket `path` lead to that of `agent` for the length of a block."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # A socket's address has room for 107 bytes only.
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
        os.chmod(path, mode)
        if os.geteuid() == 0:
            os.chown(path, uid, gid)
        listener.listen(_MOST)
        stopped, stop = os.pipe()
        thread = threading.Thread(
            target=_Relay(agent, listener, stopped).run, name="ssh agent relay"
        )
        thread.start()
        try:
            yield
        finally:
            os.close(stop)
            thread.join()
            os.close(stopped)


class _Relay:
    """Carries questions and answers, which are short, until its pipe is closed."""

    def __init__(self, agent: str, listener: socket.socket, stopped: int) -> None:
        self._agent = agent
        self._listener = listener
        self._stopped = stopped
        self._others: dict[socket.socket, socket.socket] = {}

    def run(self) -> None:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._stopped, selectors.EVENT_READ)
            waiting.register(self._listener, selectors.EVENT_READ)
            try:
                while True:
                    for key, _ in waiting.select():
                        if key.fileobj == self._stopped:
                            return
                        if key.fileobj is self._listener:
                            self._accept(waiting)
                        elif isinstance(key.fileobj, socket.socket):
                            self._carry(key.fileobj, waiting)
            finally:
                for end in self._others:
                    end.close()

    def _accept(self, waiting: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        agent = socket.socket(socket.AF_UNIX)
        try:
            agent.connect(self._agent)
        except OSError:  # the person's agent has ended: so does the conversation
            client.close()
            agent.close()
            return
        for end, other in ((client, agent), (agent, client)):
            end.settimeout(_PATIENCE)
            self._others[end] = other
            waiting.register(end, selectors.EVENT_READ)
        if len(self._others) >= 2 * _MOST:
            waiting.unregister(self._listener)

    def _carry(self, end: socket.socket, waiting: selectors.BaseSelector) -> None:
        other = self._others.get(end)
        if other is None:
            return  # its other end has just closed both
        try:
            piece = end.recv(_CHUNK)
            if piece:
                other.sendall(piece)
                return
        except OSError:
            pass  # one end is gone: nobody is there to be told
        if len(self._others) >= 2 * _MOST:
            waiting.register(self._listener, selectors.EVENT_READ)
        for one in (end, other):
            waiting.unregister(one)
            del self._others[one]
            one.close()
