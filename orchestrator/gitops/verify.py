"""Whether a revision is signed by somebody whom the source trusts.

git checks the signature; who is trusted stands in files of this host alone, never in the
repository: an allowed-signers file for SSH keys (ssh-keygen(1), "ALLOWED SIGNERS"), a keyring
for OpenPGP. Only the commit that is applied (or the tag that leads to it) is looked at, as its
name is a digest of all that came before.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.gitops.errors import (
    GitFailed,
    GitOpsError,
    NotSigned,
    SignatureError,
    WrongSignature,
)
from orchestrator.gitops.mirror import Mirror, Revision
from orchestrator.gitops.source import Verify

_GOOD_SSH = re.compile(r'^Good "git" signature for (.+) with (\S+) key (\S+)$', re.MULTILINE)
_KNOWN_KEY = re.compile(r'^Good "git" signature with (\S+) key (\S+)$', re.MULTILINE)
_VALID_GPG = re.compile(r"^\[GNUPG:\] VALIDSIG ([0-9A-F]+)", re.MULTILINE)
_GOOD_GPG = re.compile(r"^\[GNUPG:\] GOODSIG \S+ (.*)$", re.MULTILINE)
_SIGNATURE = re.compile(rb"^(?:gpgsig|gpgsig-sha256) ", re.MULTILINE)
_TAG_SIGNATURE = re.compile(rb"^-----BEGIN (?:SSH SIGNATURE|PGP SIGNATURE)-----$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who signed: the principal or user id, and the key's fingerprint."""

    name: str
    key: str

    def __str__(self) -> str:
        return f"{self.name} ({self.key})"


async def verify(mirror: Mirror, revision: Revision) -> Signer | None:
    """Who signed `revision`, None where the source asks for no signature.

    To be called after the fetch that gave the revision. Raises NotSigned, WrongSignature.
    """
    wanted = mirror.source.verify
    if wanted is None:
        return None
    signer: Signer | None = None
    with _keyring(wanted) as environ:
        if wanted.mode in ("Tag", "TagAndHEAD"):
            signer = await _verify_tag(mirror, revision, environ)
        if wanted.mode in ("HEAD", "TagAndHEAD"):
            signer = await _verify_commit(mirror, revision, environ)
    return signer


async def _verify_commit(mirror: Mirror, revision: Revision, environ: Mapping[str, str]) -> Signer:
    content = await mirror.git.run("cat-file", "commit", revision.commit)
    header = content.partition(b"\n\n")[0]
    if not _SIGNATURE.search(header):
        raise NotSigned(
            f"commit {revision.commit[:12]} is not signed",
            commit=revision.commit,
            hint="sign it (git commit -S), or take verify out of the source",
        )
    return await _check(mirror, "verify-commit", revision, revision.commit, environ)


async def _verify_tag(mirror: Mirror, revision: Revision, environ: Mapping[str, str]) -> Signer:
    name = revision.ref.removeprefix("refs/tags/")
    # What was fetched then: meanwhile, somebody may have had another tag fetched.
    object_name = revision.object or revision.commit
    kind = (await mirror.git.run("cat-file", "-t", object_name)).strip()
    if kind != b"tag":
        raise NotSigned(
            f"tag {name} is only a name, and bears no signature",
            commit=revision.commit,
            hint="make a signed tag (git tag -s)",
        )
    content = await mirror.git.run("cat-file", "tag", object_name)
    if await mirror.resolve(object_name) != revision.commit:
        raise WrongSignature(f"tag {name} is of another commit by now", commit=revision.commit)
    if not _TAG_SIGNATURE.search(content):
        raise NotSigned(f"tag {name} is not signed", commit=revision.commit)
    # A signed tag that was moved under another name still has its own in it.
    if f"\ntag {name}\n".encode() not in content.partition(b"\n\n")[0] + b"\n":
        raise WrongSignature(
            f"tag {name} is signed as a tag of another name", commit=revision.commit
        )
    return await _check(mirror, "verify-tag", revision, object_name, environ)


async def _check(
    mirror: Mirror, verb: str, revision: Revision, name: str, environ: Mapping[str, str]
) -> Signer:
    try:
        _, said = await mirror.git.call(verb, "--raw", name, environ=environ)
    except GitFailed as exc:
        raise _refusal(revision, exc.said) from exc
    if match := _GOOD_SSH.search(said):
        return Signer(name=match[1], key=match[3])
    valid, good = _VALID_GPG.search(said), _GOOD_GPG.search(said)
    if valid and good:
        return Signer(name=good[1], key=valid[1])
    raise _refusal(revision, said)


def _refusal(revision: Revision, said: str) -> SignatureError:
    what = f"the signature of {revision.commit[:12]}"
    if match := _KNOWN_KEY.search(said):
        message = f"{what} is by {match[1]} key {match[2]}, which is not among the allowed signers"
    elif "No principal matched" in said or "NO_PUBKEY" in said:
        message = f"{what} is by a key that is not among the allowed signers"
    elif "allowedSignersFile" in said:
        message = f"{what} is an SSH signature, and the source names no allowedSignersFile"
    elif "EXPKEYSIG" in said or "expired" in said.lower() or "not yet valid" in said.lower():
        message = f"{what} is by a key that was not valid at that time"
    else:
        message = f"{what} is not good"
    return WrongSignature(message, commit=revision.commit)


@contextlib.contextmanager
def _keyring(wanted: Verify) -> Iterator[dict[str, str]]:
    """The configuration under which git checks: the source's signers, and no others."""
    settings = {"gpg.x509.program": "/bin/false", "gpg.minTrustLevel": "undefined"}
    if wanted.allowed_signers_file:
        if not os.access(wanted.allowed_signers_file, os.R_OK):
            raise GitOpsError(f"cannot read {wanted.allowed_signers_file}, the allowed signers")
        if shutil.which("ssh-keygen") is None:
            raise GitOpsError(
                "ssh-keygen is not installed, and signatures are checked with it",
                hint="install it (Debian: apt install openssh-client)",
            )
        settings["gpg.ssh.allowedSignersFile"] = wanted.allowed_signers_file
    with tempfile.TemporaryDirectory(prefix="bay-keyring-") as home:
        if wanted.gpg_keyring_file:
            _import_keyring(Path(home), wanted.gpg_keyring_file)
        else:
            settings["gpg.program"] = "/bin/false"
        environ = {"GNUPGHOME": home, "GIT_CONFIG_COUNT": str(len(settings))}
        for number, (key, value) in enumerate(settings.items()):
            environ[f"GIT_CONFIG_KEY_{number}"] = key
            environ[f"GIT_CONFIG_VALUE_{number}"] = value
        yield environ


def _import_keyring(home: Path, keyring: str) -> None:
    """Make a home for gpg in which the source's keys are all there is, and are trusted."""
    import subprocess

    program = shutil.which("gpg")
    if program is None:
        raise GitOpsError(
            "gpg is not installed, and the source's keyring needs it",
            hint="install it (Debian: apt install gpg)",
        )
    try:
        subprocess.run(
            (program, "--homedir", str(home), "--batch", "--quiet", "--no-autostart",
             "--import", keyring),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(home)},
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        raise GitOpsError(f"{keyring} is not a keyring that gpg can read") from exc
