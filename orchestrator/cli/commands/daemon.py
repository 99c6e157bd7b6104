"""`bay daemon`: run the daemon in the foreground, ask after it, or end it."""

from __future__ import annotations

import os

from orchestrator.cli import output
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Command, Group, choice, text
from orchestrator.cli.session import Session
from orchestrator.client import daemon

NOT_RUNNING = 3  # what `systemctl status` gives for a unit that is not active


def _foreground(session: Session, *, webhook: str | None) -> int:
    if os.geteuid() != 0:
        raise UsageError("the daemon must run as root", hint="run bay as root (sudo bay …)")
    command = daemon.command(session.root, session.run)
    if webhook is not None:
        command += ["--webhook", webhook]
    # Who runs it by hand or as a unit has chosen its environment, of which git sources may name
    # variables; one that any command starts keeps no stranger's.
    environ = {**daemon.environment({}), **session.environ}
    os.execve(command[0], command, environ)


def _status(session: Session, *, format: str | None) -> int:
    client = daemon.answering(session.run)
    if client is None:
        if format == "json":
            output.as_json({"running": False})
        else:
            print(f"not running ({session.run})")
        return NOT_RUNNING
    found = client.get("/v1/version")
    if format == "json":
        output.as_json({"running": True, **found})
    else:
        since = output.age(found.get("started_at"))
        print(f"running for {since}, pid {found['pid']}, version {found['version']}")
        print(f"state {found['root']}, socket {client.socket_path}")
    return 0


def _stop(session: Session) -> int:
    from orchestrator.engine import guard

    if daemon.end(session.run):
        print("stopped; containers go on")
        return 0
    # One that was just killed is not to come back either.
    guard.release(session.run)
    print("not running")
    return 0


GROUP = Group(
    "daemon",
    Command(
        "status",
        _status,
        summary="Say whether it runs (exit status 3: it does not)",
        options=(choice("--format", help="Output format", choices=("text", "json")),),
    ),
    Command("stop", _stop, summary="End it; containers go on"),
    default=Command(
        "run",
        _foreground,
        summary="Run it in the foreground",
        options=(
            text(
                "--webhook",
                help="Take deliveries for git sources here (bay gitops listen keeps it)",
                metavar="HOST:PORT",
            ),
        ),
    ),
    summary="Run the daemon in the foreground; or status, stop",
)
