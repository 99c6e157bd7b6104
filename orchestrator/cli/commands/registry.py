"""`bay registry`: a registry of one's own."""

from __future__ import annotations

import os

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Command, Group, flag, text
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
    **tokens: str | None,
) -> int:
    from orchestrator.engine import transfers

    _check_tokens(tokens)
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    transfers.serve_registry(
        os.path.join(session.cwd, storage or os.path.join(session.root, "registry")),
        listen,
        certificate=tls_cert,
        key=tls_key,
        htpasswd=htpasswd,
        read_only=read_only,
        proxy=proxy,
        tokens=tokens,
    )
    return 0


def _check_tokens(given: dict[str, str | None]) -> None:
    keys = [name for name in ("token_certs", "token_secret") if given[name]]
    named = ("token_realm", "token_service", "token_issuer")
    if not any(given.values()):
        return
    if missing := [name for name in named if not given[name]]:
        raise UsageError(f"--{missing[0].replace('_', '-')} is missing: tokens need it")
    if len(keys) != 1:
        raise UsageError("tokens are checked by --token-certs or by --token-secret")


GROUP = Group(
    "registry",
    Command(
        "serve",
        _serve,
        summary="Run a registry in the foreground",
        options=(
            text("--storage", help="Directory for its content [ROOT/registry]", metavar="DIR"),
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
        ),
    ),
    summary="Run a registry",
)
