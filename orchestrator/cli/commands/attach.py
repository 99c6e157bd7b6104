"""`bay attach`: the terminal or the streams of a service's first process."""

from __future__ import annotations

import sys

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, Option, flag, number, text
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    detach_keys: str | None,
    index: float | None,
    no_stdin: bool,
    sig_proxy: bool,
    service: str,
) -> int:
    from orchestrator.cli import choosing, streams
    from orchestrator.cli.detach import DEFAULT, DetachKeys
    from orchestrator.engine.monitors import InvalidState, open_attach

    keys = DetachKeys(detach_keys or DEFAULT)
    container = choosing.one(session, service, index)
    if container["tty"] and not no_stdin and not sys.stdin.isatty():
        raise UsageError(
            f"container {container['name']} has a terminal, and the input is none",
            hint="--no-stdin only watches",
        )
    sys.stdout.flush()
    try:
        attached = open_attach(container["monitor_socket"], stdin=not no_stdin)
    except InvalidState as exc:
        raise UsageError(f"service {service} is not running") from exc
    with attached:
        status = streams.carry_attached(
            attached,
            keys=keys if container["tty"] and not no_stdin else None,
            proxy=sig_proxy,
            typing=not no_stdin,
            end_input=False,
        )
    if status is None:
        print("detached; the container goes on", file=sys.stderr)
    return status or 0


COMMAND = Command(
    "attach",
    run,
    summary="Attach this terminal to a service's running container",
    options=(
        text("--detach-keys", help="Keys that leave it running [ctrl-p,ctrl-q]", metavar="KEYS"),
        number("--index", help="Which of several replicas", metavar="NUMBER"),
        flag("--no-stdin", help="Only watch its output"),
        Option("--sig-proxy", kind="flag", help="Pass signals on to it [true]", default=True),
    ),
    arguments=(Argument("service", help="Service whose container to use"),),
)
