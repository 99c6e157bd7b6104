"""`bay gitops`: stacks that follow git repositories."""

from __future__ import annotations

import os
import sys
from typing import Any

from orchestrator.cli import operation, output, sources
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, Group, choice, flag
from orchestrator.cli.session import Session
from orchestrator.client.http import quote

_ROOT = "/v1/gitops/sources"
_LISTEN = "/v1/gitops/webhook"
_LEFT = "the daemon goes on without you, bay gitops status shows how it goes"


def _add(session: Session, *, file: str, no_wait: bool, format: str | None) -> int:
    from pathlib import Path

    from orchestrator.gitops.source import load_source

    source = load_source(Path(session.cwd, file))
    added = session.client.post(_ROOT, {"source": source.canonical()})
    if no_wait or added["suspended"]:
        return _show(added, format)
    return _sync_now(session, source.name, force=False, format=format)


def _ls(session: Session, *, quiet: bool, format: str | None) -> int:
    found = session.client.get(_ROOT)
    if quiet:
        for source in found:
            print(source["name"])
    elif format == "json":
        output.as_json(found)
    else:
        sources.table(found)
    return 0


def _status(session: Session, *, source: str | None, format: str | None) -> int:
    """Exit status 2 where a source is not as its repository says."""
    client = session.client
    found = [client.get(_path(source))] if source is not None else client.get(_ROOT)
    if format == "json":
        output.as_json(found[0] if source is not None else found)
    elif not found:
        print("no source; bay gitops add FILE takes one on", file=sys.stderr)
    else:
        for number, each in enumerate(found):
            if number:
                print()
            sources.describe(each)
    return 0 if all(each["ready"] or each["suspended"] for each in found) else 2


def _sync(
    session: Session, *, source: str, force: bool, no_wait: bool, wait: bool, format: str | None
) -> int:
    if no_wait and wait:
        raise UsageError("--wait and --no-wait exclude each other")
    if not no_wait:
        return _sync_now(session, source, force=force, format=format)
    asked = session.client.post(_path(source, "sync"), {"force": force})
    if format == "json":
        output.as_json(asked)
    else:
        print(f"{source}: its repository is asked; bay gitops status {source} shows how it goes")
    return 0


def _sync_now(session: Session, source: str, *, force: bool, format: str | None) -> int:
    return _follow(session, source, "sync", {"force": force, "wait": True}, format)


def _follow(
    session: Session, source: str, verb: str, body: dict[str, Any], format: str | None
) -> int:
    response = session.client.stream("POST", _path(source, verb), body)
    ended = operation.follow(session, response, title=f"gitops {verb}", left=_LEFT)
    return _show(ended["source"], format)


def _show(source: dict[str, Any], format: str | None) -> int:
    if format == "json":
        output.as_json(source)
    else:
        print(sources.line(source))
    return 0


def _suspend(session: Session, *, source: str) -> int:
    session.client.post(_path(source, "suspend"))
    print(f"{source}: not followed until bay gitops resume {source}; what runs goes on")
    return 0


def _resume(session: Session, *, source: str) -> int:
    session.client.post(_path(source, "resume"))
    print(f"{source}: followed again")
    return 0


def _history(session: Session, *, source: str, format: str | None) -> int:
    entries = session.client.get(_path(source, "history"))
    if format == "json":
        output.as_json(entries)
    else:
        sources.history(entries)
    return 0


def _rollback(session: Session, *, source: str, revision: str | None, format: str | None) -> int:
    status = _follow(session, source, "rollback", {"revision": revision}, format)
    if format != "json":
        print(f"it stays there: newer commits are not applied until bay gitops resume {source}")
    return status


def _diff(session: Session, *, source: str, format: str | None) -> int:
    """Exit status 2 where something would be done."""
    shown = session.client.get(_path(source, "diff"))
    if format == "json":
        output.as_json(shown)
    else:
        sources.difference(shown)
    return 0 if shown["empty"] else 2


def _rm(session: Session, *, source: str, keep: bool) -> int:
    query = {"keep": "1"} if keep else {}
    response = session.client.stream("DELETE", _path(source), **query)
    operation.follow(session, response, title="gitops rm")
    return 0


def _listen(session: Session, *, address: str | None, off: bool, format: str | None) -> int:
    client = session.client
    if off and address is not None:
        raise UsageError("--off takes no address")
    if off or address is not None:
        shown = client.request("PUT", _LISTEN, body={"address": address or ""}).json()
    else:
        shown = client.get(_LISTEN)
    if format == "json":
        output.as_json(shown)
    elif shown["address"]:
        print(f"http://{shown['address']}/v1/gitops/SOURCE/webhook")
    else:
        print("deliveries are taken nowhere; sources are polled")
        if shown["kept"]:
            print(f"{shown['kept']} could not be had, the daemon's log says why", file=sys.stderr)
    return 0


def _path(source: str, verb: str = "") -> str:
    return os.path.join(_ROOT, quote(source), verb).rstrip("/")


_FORMAT = choice("--format", help="Output format", choices=("text", "json"))
_FORCE = flag("--force", help="Also try what failed, and accept a rewritten history this once")
_ONE = Argument("source", help="Source")

GROUP = Group(
    "gitops",
    Command(
        "add",
        _add,
        summary="Take a source on, or a new definition of it, and apply it",
        options=(flag("--no-wait", help="Do not wait for the first sync"), _FORMAT),
        arguments=(Argument("file", help="File with a GitSource"),),
    ),
    Command(
        "ls",
        _ls,
        summary="List the sources",
        options=(
            flag("-q", "--quiet", help="Only names"),
            choice("--format", help="Output format", choices=("table", "json")),
        ),
    ),
    Command(
        "status",
        _status,
        summary="Show what was tried last and what stands (exit status 2: not ready)",
        options=(_FORMAT,),
        arguments=(Argument("source", required=False, help="Source (default: all)"),),
    ),
    Command(
        "sync",
        _sync,
        summary="Have the repository asked at once, and what it says applied",
        options=(
            _FORCE,
            flag("--no-wait", help="Only ask; do not wait for what comes of it"),
            flag("--wait", help="Show how it goes until it is done (the default)"),
            _FORMAT,
        ),
        arguments=(_ONE,),
    ),
    Command("suspend", _suspend, summary="Follow a source no further", arguments=(_ONE,)),
    Command("resume", _resume, summary="Follow a source again", arguments=(_ONE,)),
    Command(
        "history",
        _history,
        summary="List what was applied, and what failed",
        options=(_FORMAT,),
        arguments=(_ONE,),
    ),
    Command(
        "rollback",
        _rollback,
        summary="Go back to a revision and stay there until resume",
        options=(_FORMAT,),
        arguments=(
            _ONE,
            Argument(
                "revision", required=False, help="Its number or commit (default: the one before)"
            ),
        ),
    ),
    Command(
        "diff",
        _diff,
        summary="Show what a sync would do (exit status 2: something)",
        options=(_FORMAT,),
        arguments=(_ONE,),
    ),
    Command(
        "rm",
        _rm,
        summary="Forget a source and take its stacks down; volumes stay",
        options=(flag("--keep", help="Leave its stacks running"),),
        arguments=(_ONE,),
    ),
    Command(
        "listen",
        _listen,
        summary="Say or set where deliveries of git servers are taken",
        options=(flag("--off", help="Nowhere"), _FORMAT),
        arguments=(Argument("address", required=False, metavar="HOST:PORT", help="Address"),),
    ),
    summary="Have stacks follow git repositories",
)
