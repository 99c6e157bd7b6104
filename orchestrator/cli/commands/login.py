"""`bay login`: keep credentials of a registry, once they have been tried."""

from __future__ import annotations

import sys

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, flag, text
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    username: str | None,
    password: str | None,
    password_stdin: bool,
    server: str | None,
) -> int:
    from orchestrator.engine import transfers

    if password is not None and password_stdin:
        raise UsageError("--password and --password-stdin exclude each other")
    if password_stdin:
        if username is None:
            raise UsageError("--password-stdin needs --username")
        password = sys.stdin.read().rstrip("\r\n")
    elif username is None or password is None:
        username, password = _asked(username, password)
    registry, place = transfers.login(server or "", username, password)
    print(f"Login to {registry} succeeded; kept in {place}", file=sys.stderr)
    return 0


def _asked(username: str | None, password: str | None) -> tuple[str, str]:
    import getpass

    if not sys.stdin.isatty():
        raise UsageError(
            "user name and password are missing", hint="-u NAME --password-stdin reads the password"
        )
    if username is None:
        print("Username: ", end="", file=sys.stderr, flush=True)
        username = sys.stdin.readline().strip()
    return username, password if password is not None else getpass.getpass()


COMMAND = Command(
    "login",
    run,
    summary="Log in to a registry",
    options=(
        text("-u", "--username", help="User name", metavar="NAME"),
        text("--password", help="Password (others may see it)", metavar="PASSWORD"),
        flag("--password-stdin", help="Read the password from standard input"),
    ),
    arguments=(Argument("server", required=False, help="Registry (default: docker.io)"),),
)
