"""Who a registry server lets in."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from aiohttp.test_utils import make_mocked_request
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from runtime.errors import RuntimeFault
from runtime.registry.auth import basic
from runtime.registry.server.access import Access, Passwords, Wanted, password_entry
from runtime.registry.server.config import TokenAccess
from runtime.registry.server.refusals import Refusal

TOKEN = TokenAccess(
    realm="https://auth.test/token", service="reg", issuer="issuer", secret=b"0" * 32
)
PULL = Wanted(repository="app", actions=frozenset({"pull"}))
PUSH = Wanted(repository="app", actions=frozenset({"pull", "push"}))


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def token(
    secret: bytes = TOKEN.secret, header: dict[str, Any] | None = None, **changes: Any
) -> str:
    claims = {
        "iss": "issuer",
        "aud": "reg",
        "exp": time.time() + 60,
        "access": [{"type": "repository", "name": "app", "actions": ["pull"]}],
        **changes,
    }
    first = base64url(json.dumps(header or {"alg": "HS256", "typ": "JWT"}).encode())
    signed = f"{first}.{base64url(json.dumps(claims).encode())}"
    return f"{signed}.{base64url(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def allowed(access: Access, authorization: str | None, wanted: Wanted | None) -> bool:
    headers = {"Authorization": authorization} if authorization else {}
    try:
        asyncio.run(access.check(make_mocked_request("GET", "/v2/", headers), wanted))
    except Refusal as refusal:
        assert refusal.status == 401
        assert "WWW-Authenticate" in refusal.headers
        return False
    return True


def passwords(path: Path, **users: str) -> Passwords:
    lines = [
        f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}"
        for name, word in users.items()
    ]
    path.write_text("# users\n\n" + "\n".join(lines) + "\n")
    return Passwords(path)


def test_without_passwords_and_tokens_everybody_may_everything() -> None:
    assert allowed(Access(None, None), None, PUSH)


def test_only_the_right_password_opens(tmp_path: Path) -> None:
    access = Access(passwords(tmp_path / "htpasswd", alice="s:e", bob="x"), None)
    assert allowed(access, basic("alice", "s:e"), PUSH)
    assert allowed(access, basic("alice", "s:e"), PUSH), "and again, remembered"
    assert not allowed(access, basic("alice", "x"), PULL)
    assert not allowed(access, basic("bob", "s:e"), PULL)
    assert not allowed(access, basic("carol", "x"), PULL)
    assert not allowed(access, None, None)
    for nonsense in ("Basic", "Basic !!", "Basic YQ==", "Bearer x", "Basic " + "A" * 100_000):
        assert not allowed(access, nonsense, PULL)


def test_a_changed_file_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    access = Access(passwords(path, alice="one"), None)
    assert allowed(access, basic("alice", "one"), PULL)
    passwords(path, alice="two")
    os.utime(path, ns=(1, 1))
    assert not allowed(access, basic("alice", "one"), PULL)
    assert allowed(access, basic("alice", "two"), PULL)


@pytest.mark.parametrize(
    "line", ["alice", "alice:plain", "alice:{SHA}xyz=", "alice:$apr1$x$y", "alice:$1$x$y"]
)
def test_weak_entries_are_named_with_their_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"# first\n{line}\n")
    with pytest.raises(RuntimeFault, match="htpasswd:2: not a bcrypt entry"):
        Passwords(path)


def test_a_made_entry_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(password_entry("alice", "secret") + "\n")
    assert Passwords(path).check("alice", "secret")


def test_a_token_opens_what_it_names() -> None:
    access = Access(None, TOKEN)
    assert allowed(access, f"Bearer {token()}", PULL)
    assert allowed(access, f"Bearer {token()}", None)
    assert not allowed(access, f"Bearer {token()}", PUSH)
    other = Wanted(repository="other", actions=frozenset({"pull"}))
    assert not allowed(access, f"Bearer {token()}", other)
    everything = [{"type": "repository", "name": "app", "actions": ["*"]}]
    assert allowed(access, f"Bearer {token(access=everything)}", PUSH)


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": b"1" * 32},
        {"header": {"alg": "none"}},
        {"header": {"alg": "HS512"}},
        {"header": {"alg": "RS256", "jwk": {"kty": "oct", "k": "AAAA"}}},
        {"iss": "somebody"},
        {"aud": "elsewhere"},
        {"exp": 1},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": time.time() + 3600},
        {"access": None},
        {"access": [{"type": "repository", "name": "app", "actions": "pull"}]},
        {"access": [{"type": "registry", "name": "app", "actions": ["pull"]}]},
    ],
)
def test_tokens_that_are_not_ours_or_not_for_this_are_refused(changes: dict[str, Any]) -> None:
    assert not allowed(Access(None, TOKEN), f"Bearer {token(**changes)}", PULL)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "....", "é.é.é", "e30.e30."])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert not allowed(Access(None, TOKEN), f"Bearer {text}", PULL)


def test_an_unsigned_token_with_a_key_of_its_own_is_refused() -> None:
    key = b"attacker"
    header = {"alg": "HS256", "jwk": {"kty": "oct", "k": base64url(key)}}
    assert not allowed(Access(None, TOKEN), f"Bearer {token(key, header)}", PULL)


def test_the_challenge_says_what_to_ask_for() -> None:
    with pytest.raises(Refusal) as refused:
        asyncio.run(Access(None, TOKEN).check(make_mocked_request("GET", "/v2/"), PUSH))
    assert refused.value.headers["WWW-Authenticate"] == (
        'Bearer realm="https://auth.test/token",service="reg",scope="repository:app:pull,push"'
    )


def certificate(key: Any, path: Path) -> Path:
    """A certificate for a key, signed with itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token service")])
    begins = datetime.fromtimestamp(time.time() - 60, UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    with path.open("ab") as file:
        file.write(made.public_bytes(Encoding.PEM))
    return path


def signed_token(algorithm: str, key: Any, **header: Any) -> str:
    unsigned = token(header={"alg": algorithm, **header}).rpartition(".")[0]
    if algorithm == "RS256":
        signature = key.sign(unsigned.encode(), PKCS1v15(), hashes.SHA256())
    else:
        r, s = decode_dss_signature(key.sign(unsigned.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{unsigned}.{base64url(signature)}"


def test_tokens_are_checked_by_the_keys_of_configured_certificates(tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
    }
    strangers: dict[str, Any] = {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
    }
    bundle = tmp_path / "bundle.pem"
    for key in keys.values():
        certificate(key, bundle)
    access = Access(None, dataclasses.replace(TOKEN, secret=b"", certificates=bundle))
    for algorithm, key in keys.items():
        good = signed_token(algorithm, key)
        assert allowed(access, f"Bearer {good}", PULL)
        assert not allowed(access, f"Bearer {good}", PUSH)
        assert not allowed(access, f"Bearer {good[:-8]}AAAAAAA", PULL)
        assert not allowed(access, f"Bearer {signed_token(algorithm, strangers[algorithm])}", PULL)
        other = "ES256" if algorithm == "RS256" else "RS256"
        rest = good.partition(".")[2]
        confused = base64url(json.dumps({"alg": other}).encode())
        assert not allowed(access, f"Bearer {confused}.{rest}", PULL)
    # A public key is no shared secret, whatever the header says.
    public = keys["RS256"].public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, bundle.read_bytes(), b""):
        assert not allowed(access, f"Bearer {token(secret)}", PULL)
    assert not allowed(Access(None, TOKEN), f"Bearer {signed_token('RS256', keys['RS256'])}", PULL)


def test_certificates_that_check_no_token_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    weak = certificate(
        rsa.generate_private_key(public_exponent=65537, key_size=1024), tmp_path / "weak"
    )
    for bundle in (tmp_path / "nothing", tmp_path / "empty", weak):
        with pytest.raises(RuntimeFault, match=str(bundle)):
            Access(None, dataclasses.replace(TOKEN, secret=b"", certificates=bundle))
    with pytest.raises(RuntimeFault, match="cannot be checked"):
        Access(None, dataclasses.replace(TOKEN, secret=b""))
