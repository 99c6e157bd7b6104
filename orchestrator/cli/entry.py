"""Where `bay` starts: the quick way for a well-formed line, typer for all the rest.

Typer and what it needs take longer to import than most commands take to run, so it
is loaded only to print help, to complete a word or to explain a mistake.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import NoReturn

from orchestrator.cli.arguments import Line, NotUnderstood, parse
from orchestrator.cli.table import find

COMPLETION_VARIABLE = "_BAY_COMPLETE"

# Objects that are made before the collector looks for cycles among them.
_COLLECTED = 50_000


def program() -> NoReturn:
    """The process `bay`."""
    # What modules consist of is no garbage, and most commands make little else.
    gc.set_threshold(_COLLECTED)
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    # Without taking the interpreter apart, which takes some milliseconds.
    os._exit(status)


def main() -> int:
    """Carry out the command line of this process; gives the exit status."""
    argv = sys.argv[1:]
    if argv in (["--version"], ["-v"]):
        argv = ["version"]
    if COMPLETION_VARIABLE in os.environ:
        return _typer(argv)
    line = _understand(argv)
    return _typer(argv) if line is None else carry_out(line)


def _understand(argv: list[str]) -> Line | None:
    try:
        return parse(argv, find)
    except NotUnderstood:
        return None


def carry_out(line: Line) -> int:
    """Run a parsed line; every exception ends here as one clear message."""
    from orchestrator.cli.session import Session

    try:
        session = Session(line.options, environ=os.environ, cwd=os.getcwd())
        if session.dry_run:
            from orchestrator.cli import dry

            dry.check(line.command)
        status = line.command.run(session, **line.values)
        sys.stdout.flush()
        # As bay plan says it.
        return 2 if session.changes and status == 0 else status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone (`bay logs | head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as exc:
        from orchestrator.cli.errors import report

        return report(exc)


def _typer(argv: list[str]) -> int:
    from orchestrator.cli.app import run

    return run(argv, carry_out)
