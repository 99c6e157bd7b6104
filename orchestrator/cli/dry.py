"""Which commands `--dry-run` is for: those that plan, and those that change nothing anyway."""

from __future__ import annotations

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Command
from orchestrator.cli.table import find

_PLANNED = frozenset(
    ("up", "create", "scale", "down", "start", "stop", "restart", "kill", "rm", "build")
)
_READING = frozenset(
    (
        "changes", "completion", "config", "diff", "doctor", "events", "graph", "history",
        "images", "logs", "ls", "plan", "port", "ps", "stats", "status", "top", "version",
        "volumes", "wait",
    )
)  # fmt: skip


def check(command: Command) -> None:
    """Raises UsageError for a command that would act in spite of --dry-run."""
    # `volume rm` is another one than `rm`.
    if command.name not in _PLANNED | _READING or find(command.name) is not command:
        raise UsageError(
            f"{command.name} has no --dry-run",
            hint=f"these have one: {', '.join(sorted(_PLANNED))}",
        )
