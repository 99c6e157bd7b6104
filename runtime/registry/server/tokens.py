"""Tokens of a token service: JSON web tokens, checked by a shared secret or by certificates.

HS256 takes the secret that registry and token service share; RS256 and ES256 take the public
keys of a bundle of certificates, as docker-registry's `auth.token.rootcertbundle`. Which kind
it is is ours to say: a secret never checks a signature that claims to be asymmetric, nor the
other way round, and no key is ever taken from a token (CVE-2025-24976).
Source: distribution docs "Token Authentication Specification", RFC 7519, RFC 7515, RFC 7518.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault
from runtime.registry.server.config import TokenAccess

_LEEWAY = 60.0
_ES256_HALF = 32

Check = Callable[[bytes, bytes], bool]
"""Whether a signature (second) is right for what was signed (first)."""


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


class Tokens:
    """Judges tokens. Raises RuntimeFault for certificates that cannot be used."""

    def __init__(self, access: TokenAccess) -> None:
        self.access = access
        self._checks: dict[str, list[Check]] = {}
        if access.secret:
            self._checks["HS256"] = [_shared(access.secret)]
        if access.certificates is not None:
            for algorithm, check in _of_certificates(access.certificates):
                self._checks.setdefault(algorithm, []).append(check)
        if not self._checks:
            raise RuntimeFault(
                "tokens cannot be checked", hint="give a secret, or a file of certificates"
            )

    def grants(self, text: str, wanted: Wanted | None, now: float) -> bool:
        """True for a token that is ours, of now, and allows what is wanted."""
        claims = self._claims(text)
        if claims is None or claims.get("iss") != self.access.issuer:
            return False
        audience = claims.get("aud")
        if self.access.service not in (audience if isinstance(audience, list) else [audience]):
            return False
        expires, begins = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(expires, int | float) or not isinstance(begins, int | float):
            return False
        if not begins - _LEEWAY <= now < expires:
            return False
        return wanted is None or wanted.actions <= _granted(claims, wanted)

    def _claims(self, text: str) -> dict[str, Any] | None:
        try:
            header, payload, signature = text.split(".")
            signed = f"{header}.{payload}".encode("ascii")
            algorithm = json.loads(_base64url(header)).get("alg")
            checks = self._checks.get(algorithm, []) if isinstance(algorithm, str) else []
            given = _base64url(signature)
            if not any(check(signed, given) for check in checks):
                return None
            claims = json.loads(_base64url(payload))
        except (ValueError, AttributeError, UnicodeEncodeError, RecursionError):
            return None
        return claims if isinstance(claims, dict) else None


def _granted(claims: dict[str, Any], wanted: Wanted) -> set[str] | frozenset[str]:
    """The actions that a token allows on what is wanted; all of those, for "*"."""
    kind = ("repository", wanted.repository) if wanted.repository else ("registry", "catalog")
    granted: set[str] = set()
    entries = claims.get("access")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and (entry.get("type"), entry.get("name")) == kind:
            actions = entry.get("actions")
            granted |= (
                {a for a in actions if isinstance(a, str)} if isinstance(actions, list) else set()
            )
    return wanted.actions if "*" in granted else granted


def _shared(secret: bytes) -> Check:
    def check(signed: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(hmac.new(secret, signed, hashlib.sha256).digest(), signature)

    return check


def _of_certificates(path: Path) -> list[tuple[str, Check]]:
    """What the keys of a PEM bundle check, with the algorithm of each."""
    # Imported where asked for: it takes as long as all the rest of the server.
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise RuntimeFault(f"read the certificates for tokens from {path}") from exc
    checks: list[tuple[str, Check]] = []
    for certificate in certificates:
        key = certificate.public_key()
        name = certificate.subject.rfc4514_string()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
            checks.append(("RS256", _rsa(key)))
        elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
            checks.append(("ES256", _elliptic(key)))
        else:
            raise RuntimeFault(
                f"{path}: the key of {name} checks no token",
                hint="it must be RSA of 2048 bits or more (RS256), or P-256 (ES256)",
            )
    return checks


def _rsa(key: Any) -> Check:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    def check(signed: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, signed, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True

    return check


def _elliptic(key: Any) -> Check:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    def check(signed: bytes, signature: bytes) -> bool:
        if len(signature) != 2 * _ES256_HALF:
            return False
        r, s = (
            int.from_bytes(half, "big")
            for half in (signature[:_ES256_HALF], signature[_ES256_HALF:])
        )
        try:
            key.verify(encode_dss_signature(r, s), signed, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    return check


def _base64url(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
