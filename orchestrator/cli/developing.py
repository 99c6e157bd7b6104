"""What `bay watch` and `bay up --watch` have in common: the dev loop of this command line."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from orchestrator.cli import output
from orchestrator.cli.errors import UsageError, describe
from orchestrator.cli.session import Session
from orchestrator.client import daemon as daemons
from orchestrator.watch.daemon import Daemon
from orchestrator.watch.loop import DevLoop
from orchestrator.watch.report import JsonReport, Report, TextReport
from orchestrator.watch.spec import Spec, Wishes


def check(session: Session) -> None:
    """Raises UsageError where the spec cannot be read a second time."""
    if "-" in session.files:
        raise UsageError("a spec on standard input cannot be read again", hint="give it a file")


def read(session: Session, services: tuple[str, ...]) -> Spec:
    """The stack's files as they are now; raises SpecError."""
    loaded = session.load(services)
    return Spec(
        project=loaded.project,
        inputs=session.inputs(loaded, services),
        environ=session.build_environ,
    )


def reporting(session: Session, out: TextIO, *, format: str | None, quiet: bool) -> Report:
    if format == "json":
        return JsonReport(out)
    colour = output.use_colour(session, out)
    return TextReport(out, colour=colour, quiet=quiet, directory=session.cwd)


def prepared(
    session: Session,
    spec: Spec,
    wishes: Wishes,
    report: Report,
    *,
    prune: bool = True,
    poll: bool = False,
) -> DevLoop:
    """A loop that notes what changes from now on, and acts once it is started.

    Raises WatchError.
    """
    name = str(spec.project.name)
    daemon = Daemon(
        name,
        report,
        answering=lambda: daemons.answering(session.run),
        ensure=lambda: daemons.ensure(session.root, session.run),
    )
    loop = DevLoop(
        daemon=daemon,
        report=report,
        load=lambda: read(session, wishes.services),
        describe=describe,
        wishes=wishes,
        root=Path(session.root),
        run=Path(session.run),
        prune=prune,
        poll=poll,
    )
    try:
        loop.prepare(spec)
    except BaseException:
        loop.close()
        raise
    return loop


def follow(loop: DevLoop) -> int:
    """Act on changes until Ctrl-C or SIGTERM, which end it once all is left; the exit status of a
    loop that could not go on."""
    import signal

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, end)
    loop.start()
    try:
        return loop.wait()
    finally:
        loop.stop()
        signal.signal(signal.SIGTERM, former)
