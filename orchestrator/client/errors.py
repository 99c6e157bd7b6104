"""What can go wrong between a command and the daemon.

ClientError
├── ApiError           the daemon answered that the request failed
├── DaemonUnreachable  nobody answers on the socket
├── DaemonStartError   a daemon was started and did not become ready
└── ProtocolError      the answer is not what the API promises
"""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """Base; `hint` says what a person can do, `exit_code` is the command's exit status."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code


class ApiError(ClientError):
    """The daemon's own words; `type` is the class of the error there."""

    def __init__(
        self, type: str, message: str, *, hint: str | None, exit_code: int, status: int = 0
    ) -> None:
        super().__init__(message, hint=hint, exit_code=exit_code)
        self.type = type
        self.status = status

    @classmethod
    def from_body(cls, body: Any, status: int = 0) -> ApiError:
        """Read an error object (`{"type", "message", "hint", "exit_code"}`)."""
        error = body if isinstance(body, dict) else {"message": str(body)}
        return cls(
            str(error.get("type", "Error")),
            str(error.get("message", "the daemon reported a failure without a message")),
            hint=error.get("hint"),
            exit_code=int(error.get("exit_code") or 1),
            status=status,
        )


class DaemonUnreachable(ClientError):
    pass


class DaemonStartError(ClientError):
    pass


class ProtocolError(ClientError):
    pass
