"""Local sockets that keep message boundaries and carry descriptors: unix(7), SOCK_SEQPACKET.

Paths may be longer than the 108 bytes of sockaddr_un: the directory is opened, and the socket
named through /proc/self/fd. No abstract names are used, since every process on the host could
reach those.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

_LIMIT = 128 * 1024
_LARGEST = 64 * 1024 * 1024


def listen(path: str, *, mode: int = 0o600, backlog: int = 128) -> socket.socket:
    """A listening socket at `path`; one that a dead process left there is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _short(path) as name:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(name)
    os.chmod(path, mode)
    listener.listen(backlog)
    return listener


def connect(path: str) -> socket.socket:
    """Raises FileNotFoundError or ConnectionRefusedError when nobody listens at `path`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(path) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _short(path: str) -> Any:
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def send(connection: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one JSON object with descriptors; one over 128 KiB travels in a file in memory."""
    send_raw(connection, json.dumps(message, separators=(",", ":")).encode(), fds)


def send_raw(connection: socket.socket, raw: bytes, fds: Sequence[int] = ()) -> None:
    """Send an object that is JSON already."""
    if len(raw) <= _LIMIT:
        socket.send_fds(connection, [b"j" + raw], fds)
        return
    body = os.memfd_create("message", os.MFD_CLOEXEC)
    try:
        os.write(body, raw)
        socket.send_fds(connection, [b"f"], [body, *fds])
    finally:
        os.close(body)


def receive(connection: socket.socket, *, most_fds: int = 8) -> tuple[dict[str, Any], list[int]]:
    """The next message and its descriptors (close-on-exec).

    Raises EOFError when the peer has gone, ValueError for what is no message.
    """
    raw, fds, _flags, _address = socket.recv_fds(connection, _LIMIT + 1, most_fds)
    for fd in fds:
        os.set_inheritable(fd, False)
    try:
        if not raw:
            raise EOFError("the peer closed the connection")
        return _decode(raw, fds), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _decode(raw: bytes, fds: list[int]) -> dict[str, Any]:
    """Takes the first of `fds` where it holds the message."""
    text = raw[1:]
    if raw[:1] == b"f":
        if not fds:
            raise ValueError("a message in a file came without its file")
        body = fds.pop(0)
        try:
            size = os.fstat(body).st_size
            if size > _LARGEST:
                raise ValueError(f"a message of {size} bytes is too large")
            text = os.pread(body, size, 0)
        finally:
            os.close(body)
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("a message is not an object")
    return message
