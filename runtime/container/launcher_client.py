"""Talks to the instance's launcher, and starts one where none listens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.container import launcher
from runtime.container.paths import Instance
from runtime.errors import LauncherError
from runtime.linux import files, sockets

# How many launchers in a row may be ending just when they are asked.
_PATIENCE = 4


class LauncherClient:
    """Safe for several threads and processes; each request has a connection of its own."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """The monitor's answer to {"op": "start", …}. Raises LauncherError."""
        try:
            for _attempt in range(_PATIENCE):
                try:
                    return self._converse(request)
                except (FileNotFoundError, ConnectionRefusedError):
                    self._ensure()
                except (ConnectionResetError, BrokenPipeError):
                    continue  # one that is ending has not read the request (unix(7))
            return self._converse(request)
        except (EOFError, OSError) as error:
            raise LauncherError(
                "start the container: the launcher gave no answer",
                hint=f"see {self._instance.launcher_log}",
            ) from error

    def guard(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> socket.socket:
        """A connection whose end has the daemon started again. Raises LauncherError."""
        request = {"op": "guard", "argv": list(argv), "env": dict(env), "log": str(log)}
        self._ensure()
        try:
            connection = sockets.connect(str(self._instance.launcher_socket))
            sockets.send(connection, request)
        except OSError as error:
            raise LauncherError("ask the launcher to guard the daemon") from error
        return connection

    def release_guard(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            sockets.send(connection, {"op": "release"})

    def retire(self) -> None:
        """Let a launcher go that is not what would be started today."""
        if self._identity() != launcher.identity():
            self.end()

    def end(self) -> None:
        """Let the launcher go, if there is one; what it has started runs on."""
        with contextlib.suppress(OSError, EOFError):
            self._converse({"op": "end"})

    def _identity(self) -> str | None:
        """What the launcher says that it is, None where there is none or one that does not."""
        with contextlib.suppress(OSError, EOFError, ValueError):
            return self._converse({"op": "identity"}).get("identity")
        return None

    def _ensure(self) -> None:
        with files.locked(self._instance.root / "launcher.lock"):
            try:
                sockets.connect(str(self._instance.launcher_socket)).close()
            except (FileNotFoundError, ConnectionRefusedError):
                launcher.spawn(self._instance)

    def _converse(self, request: dict[str, Any]) -> dict[str, Any]:
        with sockets.connect(str(self._instance.launcher_socket)) as connection:
            sockets.send(connection, request)
            answer, _fds = sockets.receive(connection)
            return answer
