"""Reads the one-line secrets that a source names by their files."""

from __future__ import annotations

from pathlib import Path

from orchestrator.gitops.errors import GitOpsError

_LIMIT = 64 * 1024


def read_secret(path: str, purpose: str) -> bytes:
    """The content of a secret's file without the newline at its end.

    `purpose` says in the error what it is for. Raises GitOpsError.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LIMIT + 1)
    except OSError as exc:
        reason = (exc.strerror or "unreadable").lower()
        raise GitOpsError(f"cannot read {path}, {purpose}: {reason}") from exc
    secret = content.rstrip(b"\r\n")
    if not secret or len(content) > _LIMIT:
        raise GitOpsError(f"{path}, {purpose}, is {'too large' if secret else 'empty'}")
    return secret
