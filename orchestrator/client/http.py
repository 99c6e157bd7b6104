"""HTTP/1.1 over a Unix socket: one request a connection, answers whole or line by line.

Of HTTP it knows what the daemon speaks: status line, headers, bodies with a length,
in chunks or up to the end of the connection (RFC 9112).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.client.errors import ApiError, DaemonUnreachable, ProtocolError

_RECEIVE = 64 * 1024
_PATIENCE = 2000  # milliseconds


class Response:
    """An answer being read; closes its connection when used up or left by `with`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self.status, headers = self._read_head()
        self.server = headers.get("server", "")
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        self._remaining = int(length) if length is not None and not self._chunked else None

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        """End a read that waits in another thread, as if the daemon had closed the connection."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def fileno(self) -> int:
        return self._connection.fileno()

    def discard(self) -> bool:
        """Throw away what has come; False at the end. For waiters who look elsewhere anyway."""
        self._buffer = b""
        more = self._receive()
        self._buffer = b""
        return more

    def json(self) -> Any:
        """The whole body as JSON; raises ApiError when the status says failure."""
        body = b"".join(self._pieces())
        self.close()
        try:
            value = json.loads(body) if body else None
        except ValueError as exc:
            raise ProtocolError(f"the daemon's answer (status {self.status}) is not JSON") from exc
        if self.status >= 400:
            error = value.get("error", value) if isinstance(value, dict) else value
            raise ApiError.from_body(error, self.status)
        return value

    def events(self) -> Iterator[dict[str, Any]]:
        """The objects of an NDJSON body as they come; raises ApiError as `json` does."""
        if self.status >= 400:
            self.json()
        with self:
            for line in self._lines():
                try:
                    event = json.loads(line)
                except ValueError as exc:
                    raise ProtocolError("a line of the daemon's answer is not JSON") from exc
                yield event

    def _lines(self) -> Iterator[bytes]:
        pending = b""
        for piece in self._pieces():
            *lines, pending = (pending + piece).split(b"\n")
            yield from (line for line in lines if line.strip())
        if pending.strip():
            yield pending

    def _read_head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._buffer:
            self._await_daemon()
            self._fill("the daemon closed the connection without an answer")
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status_line, *fields = head.decode("latin-1").split("\r\n")
        parts = status_line.split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
            raise ProtocolError(f"not an HTTP answer: {status_line[:80]!r}")
        headers = {}
        for field in fields:
            name, _, value = field.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(parts[1]), headers

    def _await_daemon(self) -> None:
        """Wait for something to read, but not for a daemon that was stopped (SIGSTOP)."""
        ready = select.poll()
        ready.register(self._connection, select.POLLIN)
        while not ready.poll(_PATIENCE):
            credentials = self._connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
            )
            pid, _uid, _gid = struct.unpack("3i", credentials)
            if _stopped(pid):
                self.close()
                raise DaemonUnreachable(
                    f"the daemon (process {pid}) is stopped", hint=f"kill -CONT {pid} lets it go on"
                )

    def _pieces(self) -> Iterator[bytes]:
        if self._chunked:
            yield from self._chunks()
            return
        remaining = self._remaining
        while remaining is None or remaining > 0:
            if not self._buffer and not self._receive():
                if remaining:
                    raise ProtocolError("the daemon's answer ends early")
                return
            piece = self._buffer if remaining is None else self._buffer[:remaining]
            self._buffer = self._buffer[len(piece) :]
            if remaining is not None:
                remaining -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        ended = "the connection to the daemon was lost before the end of its answer"
        while True:
            while b"\r\n" not in self._buffer:
                self._fill(ended)
            head, _, self._buffer = self._buffer.partition(b"\r\n")
            size = int(head.partition(b";")[0], 16)
            if size == 0:
                return
            while len(self._buffer) < size + 2:
                self._fill(ended)
            yield self._buffer[:size]
            self._buffer = self._buffer[size + 2 :]

    def _fill(self, complaint: str) -> None:
        if not self._receive():
            self.close()
            raise DaemonUnreachable(complaint, hint="run the command again")

    def _receive(self) -> bool:
        try:
            received = self._connection.recv(_RECEIVE)
        except ConnectionResetError:
            received = b""
        self._buffer += received
        return bool(received)


class Client:
    """Requests to the daemon that listens on `socket_path`.

    `renew` is called when a daemon of another version than `server` answers a question, which
    is then asked again.
    """

    def __init__(
        self, socket_path: str, *, server: str = "", renew: Callable[[str], None] | None = None
    ) -> None:
        self.socket_path = socket_path
        self._server = server
        self._renew = renew

    def get(self, path: str, **query: str | int | tuple[str, ...] | None) -> Any:
        return self.request("GET", path, query=query).json()

    def delete(self, path: str, **query: str | int | None) -> Any:
        return self.request("DELETE", path, query=query).json()

    def post(self, path: str, body: Any = None) -> Any:
        return self.request("POST", path, body=body).json()

    def stream(self, method: str, path: str, body: Any = None, **query: str) -> Response:
        """A request whose answer is read by `Response.events`."""
        return self.request(method, path, body=body, query=query)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, Any] | None = None,
    ) -> Response:
        """Send one request; raises DaemonUnreachable when nobody listens."""
        response = self._send(method, path, body, query)
        if self._renew is None or not response.server or response.server == self._server:
            return response
        if method != "GET":
            return response  # it is done already
        response.close()
        renew, self._renew = self._renew, None
        renew(response.server)
        return self._send(method, path, body, query)

    def _send(self, method: str, path: str, body: Any, query: dict[str, Any] | None) -> Response:
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        lines = [f"{method} {path}{_query(query or {})} HTTP/1.1", "Host: bayplan"]
        lines.append("Connection: close")
        if content:
            lines.append("Content-Type: application/json")
        if content or method == "POST":
            lines.append(f"Content-Length: {len(content)}")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        connection = self.connect()
        try:
            connection.sendall(head + content)
            return Response(connection)
        except BrokenPipeError:
            # A refused body: the daemon's answer, if any, is already on its way.
            return Response(connection)
        except BaseException:
            connection.close()
            raise

    def connect(self) -> socket.socket:
        """A connection to the daemon; raises DaemonUnreachable."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with _reachable(self.socket_path) as path:
                connection.connect(path)
        except PermissionError as exc:
            connection.close()
            raise DaemonUnreachable(
                f"no permission to use {self.socket_path}", hint="run bay as root (sudo bay …)"
            ) from exc
        except OSError as exc:
            connection.close()
            raise DaemonUnreachable(
                f"no daemon answers on {self.socket_path}", hint="bay daemon starts one"
            ) from exc
        return connection


def _stopped(pid: int) -> bool:
    """Whether a process stands still by a signal or for a debugger (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:
        return False


@contextlib.contextmanager
def _reachable(path: str) -> Iterator[str]:
    """A name of the socket that fits into the 108 bytes of sockaddr_un (unix(7))."""
    if len(os.fsencode(path)) < 108:
        yield path
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


def quote(text: str) -> str:
    """Percent-encode a path segment or query value (RFC 3986), UTF-8 first."""
    safe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    return "".join(chr(byte) if chr(byte) in safe else f"%{byte:02X}" for byte in text.encode())


def _query(values: dict[str, Any]) -> str:
    """A tuple gives its name once for each of its items, None nothing."""
    pairs = [
        f"{quote(name)}={quote(str(item))}"
        for name, value in values.items()
        for item in (value if isinstance(value, tuple) else (value,))
        if item is not None
    ]
    return "?" + "&".join(pairs) if pairs else ""
