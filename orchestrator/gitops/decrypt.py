"""Opens the encrypted files of a commit: age files, and SOPS files with an age key.

A stack uses one by naming it as a secret's file. The secret then refers to the plaintext in the
vault, so that it goes the way of every secret: into the container's memory, never into a plan,
the state or a log.

    secrets:
      db:    {file: db.age}
      api:   {file: secrets.sops.yaml, x-bayplan: {key: api.token}}   # one value of it

Everywhere else (env files, configs, values, the spec itself) what a file holds is stored with the
project, on a disk, and so an encrypted one is refused there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from orchestrator.gitops import sops
from orchestrator.gitops.checkout import Checkout
from orchestrator.gitops.errors import DecryptionFailed
from orchestrator.gitops.source import GitSource
from orchestrator.gitops.vault import Vault
from specs.locations import is_within
from specs.project import Project, Secret

EXTENSION = "x-bayplan"
_LIMIT = 2**20
_READ_LIMIT = 16 * 2**20
_BINARY = b"age-encryption.org/v1\n"
_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_IDENTITY = re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]+", re.IGNORECASE)


def is_age(content: bytes) -> bool:
    """Whether `content` is an age file, binary or in armour."""
    return content.startswith(_BINARY) or content.lstrip()[: len(_ARMOR)] == _ARMOR


def is_encrypted(path: str, content: bytes) -> bool:
    """Whether `content` is meant to be opened with a key before it is used."""
    return is_age(content) or sops.is_sops(path, content)


def open_file(path: str, content: bytes, identities: list[object], key: str = "") -> bytes:
    """What an encrypted file holds, or its part `key` (`a.b[0]`; SOPS only).

    `path` is for messages and for the form, by its suffix. Raises DecryptionFailed.
    """
    if not is_age(content):
        return sops.decrypt(path, content, lambda text: _open_age(path, text, identities), key)
    if key:
        raise DecryptionFailed(path, f"an age file is whole, it has no part {key!r}")
    return _open_age(path, content, identities)


def read_identities(file: Path, path: str) -> list[object]:
    """The age identities in a file, as age-keygen and ssh-keygen write it; `path` is what they
    are for. Raises DecryptionFailed."""
    import pyrage

    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise DecryptionFailed(path, f"cannot read the identities in {file}: {reason}") from exc
    try:
        if "PRIVATE KEY-----" in text:
            return [pyrage.ssh.Identity.from_buffer(text.encode())]
        found: list[object] = []
        for line in text.splitlines():
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if not _IDENTITY.fullmatch(line):
                raise DecryptionFailed(path, f"{file} has a line that is no age identity")
            found.append(pyrage.x25519.Identity.from_str(line))
    except pyrage.IdentityError as exc:
        raise DecryptionFailed(path, f"{file} holds no age identity that can be used") from exc
    if not found:
        raise DecryptionFailed(path, f"{file} holds no age identity")
    return found


def _open_age(path: str, content: bytes, identities: list[object]) -> bytes:
    import pyrage

    try:
        plain: bytes = pyrage.decrypt(content, identities)
    except pyrage.DecryptError as exc:
        # The library's own text says what is wrong with the file, and nothing of what is in it.
        raise DecryptionFailed(
            path,
            str(exc).lower().rstrip(".")[:200] or "it cannot be opened",
            hint="is it encrypted to one of the identities in decryption.identityFile?",
        ) from exc
    return plain


def open_secrets(source: GitSource, checkout: Checkout, project: Project, vault: Vault) -> Project:
    """The project with its encrypted secrets opened into `vault`. Raises DecryptionFailed."""
    identities: list[object] | None = None
    secrets = dict(project.secrets)
    for name, secret in project.secrets.items():
        found = _encrypted(checkout, secret)
        key = _key(name, secret)
        if found is None:
            if key:
                raise DecryptionFailed(secret.file, f"secret {name} takes {key!r} of a plain file")
            continue
        relative, content = found
        if source.decryption is None:
            raise DecryptionFailed(
                relative,
                "the source has no key",
                hint="name a file with age identities in decryption.identityFile",
            )
        if identities is None:
            identities = read_identities(Path(source.decryption.identity_file), relative)
        plain = open_file(relative, content, identities, key)
        if len(plain) > _LIMIT:
            raise DecryptionFailed(relative, "the secret is larger than 1 MiB")
        place = vault.path(content, key)
        vault.put(place, plain)
        digest = "sha256:" + hashlib.sha256(plain).hexdigest()
        secrets[name] = secret.model_copy(update={"file": str(place), "digest": digest})
    return project.model_copy(update={"secrets": secrets})


def refuse_elsewhere(checkout: Checkout, project: Project, read: Iterable[str]) -> None:
    """Raises DecryptionFailed for an encrypted file among `read` that is no secret's."""
    secrets = {secret.file for secret in project.secrets.values()}
    configs = {config.file for config in project.configs.values()}
    home = str(checkout.path)
    for path in sorted({*read} - (secrets - configs)):
        if is_within(path, (home,)) and (refused := refusal(checkout, os.path.relpath(path, home))):
            raise refused


def refusal(checkout: Checkout, path: str) -> DecryptionFailed | None:
    """Why the file at `path` of the checkout is not read where its content would be stored, None
    where it is not encrypted."""
    place = os.path.realpath(checkout.path / path)
    if not is_within(place, (str(checkout.path),)) or not os.path.isfile(place):
        return None
    with open(place, "rb") as file:
        if not is_encrypted(path, file.read(_READ_LIMIT)):
            return None
    return DecryptionFailed(
        path,
        "an encrypted file can only be a secret's",
        hint="what env files, configs and values hold is stored on disk; use "
        f"secrets: {{NAME: {{file: {path}}}}} (with x-bayplan: {{key: …}} for one value of it), "
        "and have the program read /run/secrets/NAME",
    )


def _encrypted(checkout: Checkout, secret: Secret) -> tuple[str, bytes] | None:
    """The path in the repository and the content of a secret's encrypted file."""
    home = str(checkout.path)
    if not secret.file or not is_within(secret.file, (home,)):
        return None
    try:
        with open(secret.file, "rb") as file:
            content = file.read(_READ_LIMIT)
    except OSError:
        return None  # found out when the secret is mounted
    relative = os.path.relpath(secret.file, home)
    return (relative, content) if is_encrypted(relative, content) else None


def _key(name: str, secret: Secret) -> str:
    options = secret.extensions.get(EXTENSION) or {}
    if not isinstance(options, dict) or set(options) - {"key"}:
        raise DecryptionFailed(secret.file, f"{EXTENSION} of secret {name} takes a key alone")
    return str(options.get("key") or "")
