"""`bay registry`: a registry of one's own."""

from __future__ import annotations

import os

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Command, Group, flag, repeated, text
from orchestrator.cli.session import Session


def _serve(
    session: Session,
    *,
    storage: str | None,
    listen: str,
    tls_cert: str | None,
    tls_key: str | None,
    htpasswd: str | None,
    read_only: bool,
    proxy: str | None,
    keep: tuple[str, ...],
    keep_tags: str | None,
    keep_tags_for: str | None,
    keep_untagged_for: str | None,
    **tokens: str | None,
) -> int:
    from orchestrator.engine import transfers

    _check_tokens(tokens)
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    transfers.serve_registry(
        _storage(session, storage),
        listen,
        certificate=tls_cert,
        key=tls_key,
        htpasswd=htpasswd,
        read_only=read_only,
        proxy=proxy,
        tokens=tokens,
        newest=_count("--keep-tags", keep_tags),
        tag_age=_seconds("--keep-tags-for", keep_tags_for),
        untagged_age=_seconds("--keep-untagged-for", keep_untagged_for),
        protect=keep,
    )
    return 0


def _check(session: Session, *, storage: str | None) -> int:
    from orchestrator.engine import transfers

    faults = transfers.check_registry(_storage(session, storage))
    for fault in faults:
        print(fault)
    if not faults:
        print("no fault found")
    return 1 if faults else 0


def _storage(session: Session, storage: str | None) -> str:
    return os.path.join(session.cwd, storage or os.path.join(session.root, "registry"))


def _check_tokens(given: dict[str, str | None]) -> None:
    keys = [name for name in ("token_certs", "token_secret") if given[name]]
    named = ("token_realm", "token_service", "token_issuer")
    if not any(given.values()):
        return
    if missing := [name for name in named if not given[name]]:
        raise UsageError(f"--{missing[0].replace('_', '-')} is missing: tokens need it")
    if len(keys) != 1:
        raise UsageError("tokens are checked by --token-certs or by --token-secret")


def _count(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"{option} {text}: it must be a number of 1 or more")
    return int(text)


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    from specs.units import parse_duration

    try:
        seconds = parse_duration(text) / 1e9
    except ValueError as exc:
        raise UsageError(f"{option} {text}: {exc}") from None
    if seconds <= 0:
        raise UsageError(f"{option} {text}: it must be more than nothing")
    return seconds


_STORAGE = text("--storage", help="Directory for its content [ROOT/registry]", metavar="DIR")
GROUP = Group(
    "registry",
    Command(
        "serve",
        _serve,
        summary="Run a registry in the foreground",
        options=(
            _STORAGE,
            text("--listen", help="Address", default="127.0.0.1:5000", metavar="HOST:PORT"),
            text("--tls-cert", help="Certificate (PEM)", metavar="FILE"),
            text("--tls-key", help="Its key (PEM)", metavar="FILE"),
            text("--htpasswd", help="Users, with bcrypt digests", metavar="FILE"),
            text("--token-realm", help="Address of a token service", metavar="URL"),
            text("--token-service", help="Our name in its tokens", metavar="NAME"),
            text("--token-issuer", help="Its name in its tokens", metavar="NAME"),
            text("--token-certs", help="Certificates that check its tokens", metavar="FILE"),
            text("--token-secret", help="File with the secret shared with it", metavar="FILE"),
            text("--proxy", help="Serve another registry's content", metavar="URL"),
            flag("--read-only", help="Take no pushes"),
            text("--keep-tags", help="Newest tags to keep of a repository [all]", metavar="N"),
            text("--keep-tags-for", help="How long to keep a tag, as 30d [ever]", metavar="AGE"),
            text(
                "--keep-untagged-for",
                help="How long to keep what has no tag, as 7d [ever]",
                metavar="AGE",
            ),
            repeated("--keep", help="Tags to keep whatever their age", metavar="PATTERN"),
        ),
    ),
    Command(
        "check",
        _check,
        summary="Read all that a registry keeps, and tell what is damaged (exit status 1)",
        options=(_STORAGE,),
    ),
    summary="Run a registry",
)
