"""Live output and input of a container's first process, for any number of clients.

The monitor copies all that it keeps to every client, through pipes of their own. A client that
does not read is given a bounded amount of patience: one that must have everything (`complete`,
a one-off run whose output goes into a file) makes the container wait, any other is let go, so
that a stopped terminal cannot stop a service.

Messages from a client after its attach:
  {"op": "signal", "number": N}   to the first process
  {"op": "end_input"}             no more input: the process sees the end of its own
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import socket
from typing import TYPE_CHECKING, Any

from runtime.linux import sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.container.monitor import Monitor

# What may wait for a client, in bytes.
PATIENCE = 1024 * 1024


class Attachment:
    """One client: our ends of its pipes by stream, and what waits for it."""

    def __init__(
        self, connection: socket.socket, pipes: dict[str, int], *, complete: bool, alone: bool
    ) -> None:
        self.connection = connection
        self.pipes = pipes
        self.complete = complete
        self.alone = alone
        self.waiting: dict[str, bytearray] = {stream: bytearray() for stream in pipes}

    @property
    def behind(self) -> bool:
        return sum(map(len, self.waiting.values())) > PATIENCE


class Attachments:
    """All clients of one monitor."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._clients: set[Attachment] = set()

    def __bool__(self) -> bool:
        return bool(self._clients)

    @property
    def full(self) -> bool:
        """Whether the container has to wait for a client."""
        return any(client.complete and client.behind for client in self._clients)

    def open(self, connection: socket.socket, request: dict[str, Any]) -> None:
        """Answer an attach: input (the process's own, where asked for and there), then output."""
        monitor = self._monitor
        ours: dict[str, int] = {}
        theirs: list[int] = []
        streams = ("stdout",) if monitor.terminal is not None else ("stdout", "stderr")
        try:
            for stream in streams:
                read, write = os.pipe2(os.O_CLOEXEC)
                theirs.append(read)
                os.set_blocking(write, False)
                ours[stream] = write
            given = monitor.input_for(wanted=bool(request.get("stdin")))
            tty = monitor.terminal is not None
            message = {"attached": True, "tty": tty, "stdin": given is not None}
            sockets.send(connection, message, (*([] if given is None else [given]), *theirs))
        except OSError:
            for fd in ours.values():
                os.close(fd)
            connection.close()
            return
        finally:
            for fd in theirs:
                os.close(fd)
        client = Attachment(
            connection, ours, complete=bool(request.get("complete")), alone=len(streams) == 1
        )
        self._clients.add(client)
        monitor.selector.register(
            connection, selectors.EVENT_READ, lambda _fd: self._on_message(client)
        )

    def write(self, stream: str, chunk: bytes) -> None:
        """Pass on what the process has said."""
        for client in list(self._clients):
            waiting = client.waiting.get(stream)
            if waiting is None:
                continue
            idle = not waiting
            waiting += chunk
            self._flush(client, stream)
            if client not in self._clients:
                continue
            if waiting and idle:
                self._monitor.selector.register(
                    client.pipes[stream],
                    selectors.EVENT_WRITE,
                    functools.partial(self._on_room, client, stream),
                )
            if client.behind and not client.complete:
                self.drop(client, {"error": {"message": "fell behind the container's output"}})

    def _on_room(self, client: Attachment, stream: str, _fd: int) -> None:
        self._flush(client, stream)
        if client in self._clients and not client.waiting[stream]:
            self._monitor.selector.unregister(client.pipes[stream])
        self._monitor.resume_output()

    def _flush(self, client: Attachment, stream: str) -> None:
        waiting = client.waiting[stream]
        while waiting:
            try:
                written = os.write(client.pipes[stream], waiting[:65536])
            except BlockingIOError:
                return
            except OSError:
                # It reads no more; the container goes on.
                self._close_pipe(client, stream)
                return
            del waiting[:written]

    def _close_pipe(self, client: Attachment, stream: str) -> None:
        fd = client.pipes.pop(stream)
        client.waiting.pop(stream)
        self._monitor.selector.discard(fd)
        os.close(fd)
        if not client.pipes:
            self.drop(client)

    def _on_message(self, client: Attachment) -> None:
        try:
            message, fds = sockets.receive(client.connection)
        except (EOFError, OSError, ValueError):
            self.drop(client)
            return
        for fd in fds:
            os.close(fd)
        match message:
            case {"op": "signal", "number": int(number)} if number in signal.valid_signals():
                self._monitor.signal(number)
            case {"op": "end_input"}:
                self._monitor.end_input()

    def drop(self, client: Attachment, last: dict[str, Any] | None = None) -> None:
        """Let a client go, with a last word where there is one."""
        if client not in self._clients:
            return
        self._clients.discard(client)
        for fd in client.pipes.values():
            self._monitor.selector.discard(fd)
            os.close(fd)
        self._monitor.selector.discard(client.connection)
        if last is not None:
            with contextlib.suppress(OSError):
                sockets.send(client.connection, last)
        _close(client.connection)
        self._monitor.resume_output()

    def descriptors(self) -> Iterator[int]:
        """Our ends of all pipes, and the connections."""
        for client in self._clients:
            yield from (client.connection.fileno(), *client.pipes.values())

    def close(self) -> None:
        """Let all clients go without a word: a child has them, and does the rest."""
        for client in self._clients:
            for fd in client.pipes.values():
                os.close(fd)
            client.connection.close()
        self._clients.clear()

    def finish(self, exit_code: int) -> None:
        """The container has ended: give each client the rest of its output, then the exit code.

        One that must have everything is waited for, as long as it is there.
        """
        for client in list(self._clients):
            for stream, fd in list(client.pipes.items()):
                if client.complete and client.waiting[stream]:
                    os.set_blocking(fd, True)
                self._flush(client, stream)
            self.drop(client, {"exit_code": exit_code})


def _close(connection: socket.socket) -> None:
    """Close with nothing unread, which would reset the connection before our last word is read."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
        while connection.recv(1, socket.MSG_DONTWAIT):
            pass
    connection.close()
