"""Exec and attach for the command line: straight to a container's monitor, without the daemon in
between."""

from __future__ import annotations

from runtime.container.config import ExecConfig
from runtime.container.sessions import (
    AttachSession,
    ExecSession,
    open_attach,
    open_exec,
    open_watch,
    read_watch,
)
from runtime.errors import InvalidState

__all__ = [
    "AttachSession",
    "ExecConfig",
    "ExecSession",
    "InvalidState",
    "open_attach",
    "open_exec",
    "open_watch",
    "read_watch",
]
