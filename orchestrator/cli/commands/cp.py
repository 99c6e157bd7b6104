"""`bay cp`: copy files between a service's container and this host."""

from __future__ import annotations

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, flag, number
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    archive: bool,
    follow_link: bool,
    index: float | None,
    all: bool,
    source: str,
    target: str,
) -> int:
    from orchestrator.cli import choosing, copies

    if all and index is not None:
        raise UsageError("--all and --index exclude each other")
    outgoing, incoming = _split(source), _split(target)
    if (outgoing is None) == (incoming is None):
        raise UsageError("one of source and target must be SERVICE:PATH, the other a path here")
    wishes = copies.Wishes(archive=archive, follow=follow_link)
    if outgoing is not None:
        service, path = outgoing
        container = choosing.one(session, service, index, states=())
        copies.take(session, container, path, target, wishes)
        return 0
    assert incoming is not None
    service, path = incoming
    if index is not None:
        containers = [choosing.one(session, service, index, states=())]
    else:
        # Compose gives it to every replica.
        containers = choosing.some(session, (service,), oneoffs=all)
    copies.give(session, containers, source, path, wishes)
    return 0


def _split(word: str) -> tuple[str, str] | None:
    """SERVICE:PATH; a path that begins with / or . is one of this host, whatever it holds."""
    service, colon, path = word.partition(":")
    if not colon or not service or word.startswith(("/", ".")) or "/" in service:
        return None
    return service, path or "/"


COMMAND = Command(
    "cp",
    run,
    summary="Copy files between a container and this host (- is a tar stream)",
    options=(
        flag("-a", "--archive", help="Keep owners"),
        flag("-L", "--follow-link", help="Follow a link that the source is"),
        number("--index", help="Which of several replicas", metavar="NUMBER"),
        flag("--all", help="To one-off containers of the service, too"),
    ),
    arguments=(
        Argument("source", help="SERVICE:PATH, a path here, or -"),
        Argument("target", help="SERVICE:PATH, a path here, or -"),
    ),
)
