"""`bay exec`: run a command in a running container; its exit status becomes ours."""

from __future__ import annotations

import os
import sys
from typing import Any

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, flag, number, repeated, text
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    no_tty: bool,
    env: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    privileged: bool,
    index: float | None,
    service: str,
    command: tuple[str, ...],
) -> int:
    from orchestrator.cli import streams
    from orchestrator.engine.monitors import ExecConfig, open_exec

    container = _container(session, service, None if index is None else int(index))
    tty = not no_tty and sys.stdin.isatty() and sys.stdout.isatty()
    columns, rows = os.get_terminal_size() if tty else (80, 24)
    config = ExecConfig(
        argv=command,
        env=tuple(_variable(session, word) for word in env),
        cwd=workdir,
        user=user,
        tty=tty,
        stdin=True,
        privileged=privileged,
        rows=rows,
        columns=columns,
    )
    sys.stdout.flush()
    with open_exec(container["monitor_socket"], config) as process:
        return streams.carry_terminal(process) if tty else streams.carry(process)


def _container(session: Session, service: str, index: int | None) -> dict[str, Any]:
    """The running container of `service` with that number, or the first of them."""
    found = session.client.get(session.project_path("containers"), all=1)
    of_service = [container for container in found if container["service"] == service]
    running = [
        container
        for container in of_service
        if container["state"] == "running" and index in (None, container["number"])
    ]
    if running:
        return dict(min(running, key=lambda container: int(container["number"])))
    if index is not None and of_service:
        raise UsageError(f"service {service} has no running container number {index}")
    known = sorted({container["service"] for container in found})
    hint = f"services with containers: {', '.join(known)}" if known else "bay up -d starts them"
    raise UsageError(f"service {service} is not running", hint=hint)


def _variable(session: Session, word: str) -> str:
    """NAME=VALUE as it is; a bare NAME takes its value from our environment."""
    return word if "=" in word else f"{word}={session.environ.get(word, '')}"


COMMAND = Command(
    "exec",
    run,
    summary="Run a command in a running container",
    options=(
        flag("-T", "--no-tty", "--no-TTY", name="no_tty", help="No terminal for the command"),
        repeated("-e", "--env", help="Environment variable", metavar="NAME=VALUE"),
        text("-u", "--user", help="User to run as", metavar="USER"),
        text("-w", "--workdir", help="Directory to run in", metavar="DIR"),
        flag("--privileged", help="With all capabilities"),
        number("--index", help="Which of several replicas", metavar="NUMBER"),
    ),
    arguments=(
        Argument("service", help="Service whose container to use"),
        Argument("command", many=True, help="Command and its arguments"),
    ),
    passthrough=True,
)
