"""Who may do what: htpasswd files, and tokens of a token service.

htpasswd holds bcrypt entries (`htpasswd -B`), as Docker's registry demands; other kinds are
too weak to take and named when the file is read. Everybody in the file may do everything.
What a token allows, its claims say (`tokens`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import time
from pathlib import Path

import bcrypt
from aiohttp import web

from runtime.errors import RuntimeFault
from runtime.registry.server.config import TokenAccess
from runtime.registry.server.refusals import Code, Refusal
from runtime.registry.server.tokens import Tokens
from runtime.registry.server.tokens import Wanted as Wanted
from runtime.registry.transfer import in_thread

_REALM = "registry"
_REMEMBERED_SECONDS = 300.0
_REMEMBERED = 1000
_LONGEST_HEADER = 16 * 1024
_BCRYPT = ("$2a$", "$2b$", "$2y$")


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
        self._tokens = None if token is None else Tokens(token)

    @property
    def is_open(self) -> bool:
        return self._passwords is None and self._tokens is None

    @property
    def by_repository(self) -> bool:
        """True where some may see one repository and not another."""
        return self._tokens is not None

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
                self._tokens is not None
                and scheme.lower() == "bearer"
                and self._tokens.grants(value.strip(), wanted, time.time())
            ):
                return
        raise self._challenge(wanted)

    def _challenge(self, wanted: Wanted | None) -> Refusal:
        if self._tokens is not None:
            known = self._tokens.access
            parts = [f'Bearer realm="{known.realm}"', f'service="{known.service}"']
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
