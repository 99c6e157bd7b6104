"""`bay exec`: run a command in a running container; its exit status becomes ours."""

from __future__ import annotations

import os
import sys

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, Option, flag, number, repeated, text
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    detach: bool,
    interactive: bool,
    wish_tty: bool,
    no_tty: bool,
    env: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    privileged: bool,
    index: float | None,
    service: str,
    command: tuple[str, ...],
) -> int:
    from orchestrator.cli import choosing, streams
    from orchestrator.engine.monitors import ExecConfig, open_exec

    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if wish_tty and not detach and not on_terminal:
        raise UsageError("the input or output is no terminal", hint="leave -t out")
    container = choosing.one(session, service, index)
    tty = (wish_tty or on_terminal) and not no_tty
    columns, rows = os.get_terminal_size() if on_terminal else (80, 24)
    config = ExecConfig(
        argv=command,
        env=tuple(_variable(session, word) for word in env),
        cwd=workdir,
        user=user,
        tty=tty,
        stdin=interactive and not detach,
        detach=detach,
        privileged=privileged,
        rows=rows,
        columns=columns,
    )
    sys.stdout.flush()
    with open_exec(container["monitor_socket"], config) as process:
        if detach:
            return 0
        carried = streams.carry_terminal(process) if tty else streams.carry(process)
    return carried or 0


def _variable(session: Session, word: str) -> str:
    """NAME=VALUE as it is; a bare NAME takes its value from our environment."""
    return word if "=" in word else f"{word}={session.environ.get(word, '')}"


COMMAND = Command(
    "exec",
    run,
    summary="Run a command in a running container",
    options=(
        flag("-d", "--detach", help="Leave the command running in the background"),
        Option(
            "-i",
            "--interactive",
            kind="flag",
            help="Pass our input on [true]",
            default=True,
        ),
        flag("-t", "--tty", name="wish_tty", help="A terminal, with -d too [where there is one]"),
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
