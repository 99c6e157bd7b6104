"""What builds put into their scratch directory beside the steps' own, and its removal."""

from __future__ import annotations

from pathlib import Path

from runtime.removal import discard

AGENT = "agent-"
CHECKOUT = "checkout-"
CONTEXT = "context-"
GATE = "gate-"


def sweep(scratch: Path) -> None:
    """Remove what builds have left that a crash cut short. Blocking."""
    for prefix in (AGENT, CHECKOUT, CONTEXT):
        for left in scratch.glob(f"{prefix}*"):
            discard(left)
    for gate in scratch.glob(f"{GATE}*"):
        gate.unlink(missing_ok=True)
