"""Which module declares which verb; nothing is imported before it is asked for."""

from __future__ import annotations

import importlib

from orchestrator.cli.options import Command, Group

VERBS = (
    "up",
    "watch",
    "down",
    "plan",
    "status",
    "diff",
    "history",
    "rollout",
    "gitops",
    "ps",
    "logs",
    "exec",
    "attach",
    "run",
    "build",
    "create",
    "scale",
    "start",
    "stop",
    "restart",
    "kill",
    "rm",
    "pause",
    "unpause",
    "wait",
    "port",
    "top",
    "stats",
    "events",
    "cp",
    "export",
    "commit",
    "changes",
    "pull",
    "push",
    "login",
    "logout",
    "config",
    "graph",
    "images",
    "volumes",
    "ls",
    "image",
    "volume",
    "network",
    "registry",
    "system",
    "doctor",
    "daemon",
    "completion",
    "version",
)
_ALIASES = {"convert": "config"}


def find(verb: str) -> Command | Group | None:
    """The declaration of `verb`, or None where there is no such verb."""
    name = _ALIASES.get(verb, verb)
    if name not in VERBS:
        return None
    module = importlib.import_module(f"orchestrator.cli.commands.{name}")
    declared = getattr(module, "COMMAND", None) or module.GROUP
    assert isinstance(declared, Command | Group)
    return declared
