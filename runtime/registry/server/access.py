"""Who may do what: htpasswd files, and tokens of a token service.

htpasswd holds bcrypt entries (`htpasswd -B`), as Docker's registry demands; other kinds are
too weak to take and named when the file is read. Everybody in the file may do everything.
Tokens are JSON web tokens, HS256 with a shared secret; the algorithm is ours, whatever the
token's header says, and no key is ever taken from a token (CVE-2025-24976). Asymmetric
signatures (RS256, ES256) are not verified here: they need a cryptographic library.
Source: distribution docs "Token Authentication Specification", RFC 7519, RFC 7515.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
from aiohttp import web

from runtime.errors import RuntimeFault
from runtime.registry.server.config import TokenAccess
from runtime.registry.server.refusals import Code, Refusal
from runtime.registry.transfer import in_thread

_REALM = "registry"
_REMEMBERED_SECONDS = 300.0
_REMEMBERED = 1000
_LEEWAY = 60.0
_LONGEST_HEADER = 16 * 1024
_BCRYPT = ("$2a$", "$2b$", "$2y$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request needs: `repository` "" stands for the registry itself."""

    repository: str
    actions: frozenset[str]

    @property
    def scope(self) -> str:
        if not self.repository:
            return "registry:catalog:*"
        order = [action for action in ("pull", "push", "delete") if action in self.actions]
        return f"repository:{self.repository}:{','.join(order)}"


class Passwords:
    """An htpasswd file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, bytes] = {}
        self._version: tuple[int, int, int] | None = None
        self._salt = secrets.token_bytes(16)
        self._remembered: dict[bytes, float] = {}
        # For users that do not exist: they must take as long as others.
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(10))
        self.read()

    def read(self) -> None:
        """Raises RuntimeFault that names the line which cannot be used."""
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version == self._version:
                return
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise RuntimeFault(f"read passwords from {self._path}") from exc
        entries = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, colon, hashed = line.strip().partition(":")
            if not colon or not hashed.startswith(_BCRYPT):
                raise RuntimeFault(
                    f"{self._path}:{number}: not a bcrypt entry",
                    hint="make it with htpasswd -B",
                )
            entries[name] = hashed.encode("ascii", errors="replace")
        self._entries = entries
        self._remembered.clear()
        self._version = version

    def check(self, name: str, password: str) -> bool:
        """Blocks for as long as bcrypt takes, but for passwords that were right just now."""
        self.read()
        key = hashlib.sha256(self._salt + f"{name}:{password}".encode()).digest()
        now = time.monotonic()
        if self._remembered.get(key, 0.0) > now:
            return True
        hashed = self._entries.get(name)
        # bcrypt sees 72 bytes and no more; a longer password was never set whole.
        given = password.encode()[:72]
        try:
            right = bcrypt.checkpw(given, hashed or self._nobody)
        except ValueError:
            return False
        if not right or hashed is None:
            return False
        if len(self._remembered) >= _REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = now + _REMEMBERED_SECONDS
        return True


def password_entry(name: str, password: str) -> str:
    """A line for an htpasswd file."""
    if ":" in name or not name or not name.isprintable():
        raise RuntimeFault(f"{name!r} is not a user name")
    if len(password.encode()) > 72:
        raise RuntimeFault("the password is longer than 72 bytes")
    return f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode('ascii')}"


class Access:
    """Decides on requests; without passwords and tokens everybody may do everything."""

    def __init__(self, passwords: Passwords | None, token: TokenAccess | None) -> None:
        self._passwords = passwords
        self._token = token

    @property
    def is_open(self) -> bool:
        return self._passwords is None and self._token is None

    @property
    def by_repository(self) -> bool:
        """True where some may see one repository and not another."""
        return self._token is not None

    async def check(self, request: web.Request, wanted: Wanted | None) -> None:
        """Raises the 401 with a challenge; `wanted` None: anybody who is known."""
        if self.is_open:
            return
        header = request.headers.get("Authorization", "")
        scheme, _, value = header.partition(" ")
        if len(header) <= _LONGEST_HEADER:
            if self._passwords is not None and scheme.lower() == "basic":
                pair = _decoded(value)
                if pair is not None and await in_thread(self._passwords.check, *pair):
                    return
            if (
                self._token is not None
                and scheme.lower() == "bearer"
                and _grants(value.strip(), wanted, self._token, time.time())
            ):
                return
        raise self._challenge(wanted)

    def _challenge(self, wanted: Wanted | None) -> Refusal:
        if self._token is not None:
            parts = [f'Bearer realm="{self._token.realm}"', f'service="{self._token.service}"']
            if wanted is not None:
                parts.append(f'scope="{wanted.scope}"')
            challenge = ",".join(parts)
        else:
            challenge = f'Basic realm="{_REALM}"'
        return Refusal(
            Code.UNAUTHORIZED,
            401,
            "authentication required",
            headers={"WWW-Authenticate": challenge},
        )


def _decoded(value: str) -> tuple[str, str] | None:
    try:
        name, colon, password = (
            base64.b64decode(value.strip(), validate=True).decode().partition(":")
        )
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return (name, password) if colon else None


def _grants(text: str, wanted: Wanted | None, access: TokenAccess, now: float) -> bool:
    """True for a token that is ours, of now, and allows what is wanted."""
    claims = _claims(text, access.secret)
    if claims is None or claims.get("iss") != access.issuer:
        return False
    audience = claims.get("aud")
    if access.service not in (audience if isinstance(audience, list) else [audience]):
        return False
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, int | float) or not isinstance(begins, int | float):
        return False
    if not begins - _LEEWAY <= now < expires:
        return False
    if wanted is None:
        return True
    kind = ("repository", wanted.repository) if wanted.repository else ("registry", "catalog")
    granted: set[str] = set()
    entries = claims.get("access")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and (entry.get("type"), entry.get("name")) == kind:
            actions = entry.get("actions")
            granted |= (
                {a for a in actions if isinstance(a, str)} if isinstance(actions, list) else set()
            )
    return "*" in granted or wanted.actions <= granted


def _claims(text: str, secret: bytes) -> dict[str, Any] | None:
    try:
        header, payload, signature = text.split(".")
        expected = hmac.new(secret, f"{header}.{payload}".encode("ascii"), hashlib.sha256).digest()
        if not hmac.compare_digest(expected, _base64url(signature)):
            return None
        if json.loads(_base64url(header)).get("alg") != "HS256":
            return None
        claims = json.loads(_base64url(payload))
    except (ValueError, AttributeError, UnicodeEncodeError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _base64url(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
