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
) -> int:
    from orchestrator.engine import transfers

    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    transfers.serve_registry(
        os.path.join(session.cwd, storage or os.path.join(session.root, "registry")),
        listen,
        certificate=tls_cert,
        key=tls_key,
        htpasswd=htpasswd,
        read_only=read_only,
    )
    return 0


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
            flag("--read-only", help="Take no pushes"),
        ),
    ),
    summary="Run a registry",
)
