"""Speaks to a container's monitor where it listens, without the daemon in between.

`bay exec` works while the daemon is being restarted, and pays only for what is imported
here: a socket and JSON.
"""

from __future__ import annotations

import socket
from typing import Any

from orchestrator.engine.errors import EngineError
from runtime.linux import sockets


class ExecError(EngineError):
    """The process could not be started; `exit_code` is 126, 127 or 125, as Docker's."""

    def __init__(self, message: str, *, hint: str | None, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class ExecSession:
    """A process started in a container.

    `ends` are our ends of its input, output and error, or of its terminal alone; they
    belong to whoever holds the session.
    """

    def __init__(self, connection: socket.socket, pid: int, ends: list[int]) -> None:
        self._connection = connection
        self.pid = pid
        self.ends = ends

    def fileno(self) -> int:
        """Readable once the process has ended."""
        return self._connection.fileno()

    def exit_code(self) -> int:
        """Wait for the end of the process; 137 when its monitor has gone with the container."""
        try:
            message, _ = sockets.receive(self._connection)
        except (EOFError, ConnectionError):
            return 137
        return int(message["exit_code"])

    def close(self) -> None:
        self._connection.close()


def start_exec(socket_path: str, config: dict[str, Any]) -> ExecSession:
    """Start a process; `config` has the fields of `runtime.container.config.ExecConfig`.

    Raises ExecError when it cannot be started, or when the container is not running.
    """
    try:
        connection = sockets.connect(socket_path)
    except OSError as exc:
        raise ExecError("the container is not running", hint=None, exit_code=1) from exc
    try:
        sockets.send(connection, {"op": "exec", "config": config})
        message, ends = sockets.receive(connection)
    except (EOFError, ConnectionError) as exc:
        connection.close()
        raise ExecError("the container ended", hint=None, exit_code=137) from exc
    error = message.get("error")
    if error is not None:
        connection.close()
        raise ExecError(
            str(error["message"]),
            hint=error.get("hint"),
            exit_code=int(error.get("exit_code") or 125),
        )
    return ExecSession(connection, int(message["started"]), ends)
