"""`bay doctor`: what of the kernel and the host is there, missing, and what that costs."""

from __future__ import annotations

import sys

from orchestrator.cli import host, output
from orchestrator.cli.options import Command, choice
from orchestrator.cli.session import Session

_WORDS = {"found": ("✔", 32), "missing": ("✘", 31), "optional": ("-", 33)}


def run(session: Session, *, format: str | None) -> int:
    """Exit status 1 when something is missing that bayplan cannot do without."""
    failed = False
    records = []
    colour = output.use_colour(session, sys.stdout)
    for feature in host.FEATURES:
        found, detail = feature.probe()
        failed = failed or (feature.needed and not found)
        records.append(
            {
                "feature": feature.title,
                "found": found,
                "needed": feature.needed,
                "detail": detail,
                "cost": None if found else feature.cost,
            }
        )
        if format != "json":
            print(_line(feature, found, detail, colour=colour), flush=True)
    if format == "json":
        output.as_json(records)
    elif failed:
        print("\nSomething that bayplan needs is missing.")
    return 1 if failed else 0


def _line(feature: host.Feature, found: bool, detail: str, *, colour: bool) -> str:
    mark, code = _WORDS["found" if found else "missing" if feature.needed else "optional"]
    head = f"\x1b[{code}m{mark}\x1b[0m" if colour else mark
    line = f" {head} {feature.title:<20} {detail}"
    return line if found else f"{line}\n   {'':<20} without it: {feature.cost}"


COMMAND = Command(
    "doctor",
    run,
    summary="Check what the kernel and the host offer",
    options=(choice("--format", help="Output format", choices=("text", "json")),),
)
