"""`bay completion`: a script that completes bay's words in a shell."""

from __future__ import annotations

import os

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command
from orchestrator.cli.session import Session

SHELLS = ("bash", "zsh", "fish")


def run(session: Session, *, shell: str) -> int:
    if shell not in SHELLS:
        raise UsageError(f"no completion for {shell}", hint=f"there is one for {', '.join(SHELLS)}")
    from orchestrator.cli import app, entry

    os.environ[entry.COMPLETION_VARIABLE] = f"source_{shell}"
    return app.run([], entry.carry_out)


COMMAND = Command(
    "completion",
    run,
    summary="Print a completion script: bay completion bash > /etc/bash_completion.d/bay",
    arguments=(Argument("shell", help="bash, zsh or fish"),),
)
