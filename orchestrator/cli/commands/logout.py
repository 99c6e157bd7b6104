"""`bay logout`: forget the credentials of a registry."""

from __future__ import annotations

import sys

from orchestrator.cli.options import Argument, Command
from orchestrator.cli.session import Session


def run(session: Session, *, server: str | None) -> int:
    from orchestrator.engine import transfers

    registry, found = transfers.logout(server or "")
    words = f"Removed the credentials of {registry}" if found else f"Not logged in to {registry}"
    print(words, file=sys.stderr)
    return 0


COMMAND = Command(
    "logout",
    run,
    summary="Log out of a registry",
    arguments=(Argument("server", required=False, help="Registry (default: docker.io)"),),
)
