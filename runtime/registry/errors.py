"""What can go wrong between this host and a registry.

RuntimeFault
└── RegistryError        the registry refused, failed or broke the protocol
    ├── AccessDenied     who asks is not known, or may not do this
    ├── Unreachable      no connection, or it broke and stayed broken
    └── HelperError      a credential helper or docker's config.json cannot be used

A manifest or tag that a registry does not have is an ImageNotFound.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from runtime.errors import RuntimeFault

_LONGEST = 400


class RegistryError(RuntimeFault):
    """An answer that is not the one asked for.

    `status` is the HTTP status (0 where there was no answer), `codes` the error codes of
    the distribution specification that came with it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        codes: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.codes = codes


class AccessDenied(RegistryError):
    """401 or 403, or a token that is not given."""


class Unreachable(RegistryError):
    """No connection to the registry, or none that lasts."""


class HelperError(RegistryError):
    """Credentials that are kept elsewhere cannot be read or written."""


def printable(text: str) -> str:
    """Text that another machine chose, fit for a terminal: one short line, no controls."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def refusal(what: str, status: int, body: bytes, headers: Mapping[str, str]) -> RegistryError:
    """The error for an answer, with the words that the registry gives (spec.md "Error Codes")."""
    codes, words = _reasons(body)
    reason = printable("; ".join(words)) or f"the registry answers {status}"
    message = f"{what}: {reason}"
    if status in (401, 403) or "DENIED" in codes or "UNAUTHORIZED" in codes:
        return AccessDenied(message, status=status, codes=codes)
    hint = None
    if status == 429:
        wait = headers.get("Retry-After", "")
        hint = f"try again in {wait} s" if wait.isdecimal() else "try again later"
    return RegistryError(message, status=status, codes=codes, hint=hint)


def _reasons(body: bytes) -> tuple[tuple[str, ...], list[str]]:
    try:
        errors = json.loads(body)["errors"]
        known = [error for error in errors if isinstance(error, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return (), []
    codes = tuple(printable(str(error.get("code", ""))) for error in known)
    words = [str(error.get("message") or error.get("code") or "") for error in known]
    return codes, [word for word in words if word]
