"""Exec for the command line: straight to a container's monitor, without the daemon in between."""

from __future__ import annotations

from runtime.container.config import ExecConfig
from runtime.container.sessions import ExecSession, open_exec

__all__ = ["ExecConfig", "ExecSession", "open_exec"]
