"""`bay build --check` and `--print`: nothing is built, and no daemon is needed."""

from __future__ import annotations

import sys
from typing import Any

from orchestrator.cli import output
from orchestrator.cli.session import Session
from orchestrator.planning.actions import BuildImage
from orchestrator.supervisor.bodies import BuildOptions
from specs.project import Project


def check(session: Session, options: dict[str, Any], services: tuple[str, ...]) -> int:
    """Print what the builder's rules say; exit status 1 where they say something."""
    from orchestrator.engine.build_preview import look_over

    project, chosen, model = _read(session, options, services)
    found = 0
    for remark in look_over(project, chosen, model):
        found += 1
        line = f":{remark.line}" if remark.line else ""
        print(f"{remark.service}: {remark.dockerfile}{line}: {remark.message} ({remark.rule})")
    if not found:
        print("nothing to remark", file=sys.stderr)
    return 1 if found else 0


def show(session: Session, options: dict[str, Any], services: tuple[str, ...]) -> int:
    from orchestrator.engine.build_preview import bake

    output.as_json(bake(*_read(session, options, services)))
    return 0


def _read(
    session: Session, options: dict[str, Any], services: tuple[str, ...]
) -> tuple[Project, tuple[str, ...], BuildImage]:
    project = session.load(services).project
    wished = BuildOptions(**options)
    return project, wished.services, wished.model(project)
