"""`bay status`: is the project as it was last applied, and does it do well?"""

from __future__ import annotations

from typing import Any

from orchestrator.cli import output
from orchestrator.cli.options import Command, choice
from orchestrator.cli.session import Session

NOT_WELL = 2


def run(session: Session, *, format: str | None) -> int:
    """Exit status 2 where something differs or does not do well."""
    found = session.client.get(session.project_path("status"))
    well = found["sync"] == "Synced" and found["health"] == "Healthy"
    if format == "json":
        output.as_json(found)
        return 0 if well else NOT_WELL
    revision = "" if found["revision"] is None else f" (revision {found['revision']})"
    print(f"{found['project']}{revision}: {found['sync']}, {found['health']}")
    if found["error"]:
        print(f"  {found['error']}")
    heads = ("SERVICE", "SYNC", "HEALTH", "RUNNING", "RESTARTS", "LAST EXIT")
    output.table(heads, [_row(service) for service in found["services"]])
    for difference in found["differences"]:
        print(f"{difference['what']}: {difference['cause']}")
    for service in found["services"]:
        for difference in service["differences"]:
            print(f"{service['name']}: {difference['what']}: {difference['cause']}")
        if service["last_error"]:
            print(f"{service['name']}: {service['last_error']}")
    return 0 if well else NOT_WELL


def _row(service: dict[str, Any]) -> tuple[str, ...]:
    last = service["last_exit"]
    ended = ""
    if last is not None:
        reason = f", {last['reason']}" if last["reason"] else ""
        ended = f"{last['code']}{reason}, {output.age(last['at'])} ago"
    return (
        service["name"],
        service["sync"],
        service["health"],
        f"{service['running']}/{service['wanted']}",
        str(service["restarts"]),
        ended,
    )


COMMAND = Command(
    "status",
    run,
    summary="Show whether the project is as applied, and well (exit status 2: not)",
    options=(choice("--format", help="Output format", choices=("text", "json")),),
)
