"""Signatures by keys that ssh-keygen and gpg have made."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.gitops.errors import GitOpsError, NotSigned, SignatureError, WrongSignature
from orchestrator.gitops.repository import GitRepository
from orchestrator.gitops.verify import Signer, verify
from tests.integration.gitops.repository import Repository, needs_git, needs_ssh

pytestmark = [needs_git, needs_ssh]


class Signers:
    """Keys by name, and the file of those that are allowed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "allowed_signers"

    def make(self, name: str) -> Path:
        key = self.directory / name
        words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key))
        subprocess.run(words, check=True)
        return key

    def allow(self, key: Path, options: str = "") -> None:
        public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
        line = " ".join(part for part in (f"{key.name}@example.org", options, public) if part)
        with self.file.open("a") as file:
            file.write(line + "\n")


@pytest.fixture
def signers(tmp_path: Path) -> Signers:
    (tmp_path / "keys").mkdir()
    return Signers(tmp_path / "keys")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository", **{"gpg.format": "ssh"})


def check(repository: Repository, mirror: Path, signers: Signers, **changes: Any) -> Signer | None:
    """Fetch and verify by the allowed signers, `mode` being HEAD unless given."""
    rule = {"allowedSignersFile": str(signers.file), "mode": changes.pop("mode", "HEAD")}

    async def fetch() -> Signer | None:
        source = repository.mirror(mirror, verify=rule, **changes)
        return await verify(source, await source.fetch())

    return asyncio.run(fetch())


def sign_with(repository: Repository, key: Path) -> None:
    repository.settings |= {"user.signingKey": str(key), "commit.gpgSign": "true"}


def test_a_commit_by_an_allowed_signer_is_taken(
    tmp_path: Path, repository: Repository, signers: Signers
) -> None:
    key = signers.make("ann")
    signers.allow(signers.make("bob"))
    signers.allow(key)
    sign_with(repository, key)
    repository.commit({"a": "1"})
    signer = check(repository, tmp_path / "mirror", signers)
    assert signer is not None
    assert signer.name == "ann@example.org"
    assert signer.key.startswith("SHA256:")


def test_a_commit_without_a_signature_is_refused(
    tmp_path: Path, repository: Repository, signers: Signers
) -> None:
    signers.allow(signers.make("ann"))
    # Words in a message are no signature.
    commit = repository.commit({"a": "1"}, "subject\n\ngpgsig -----BEGIN SSH SIGNATURE-----")
    with pytest.raises(NotSigned, match=f"commit {commit[:12]} is not signed") as caught:
        check(repository, tmp_path / "mirror", signers)
    assert caught.value.commit == commit
    assert not caught.value.transient


def test_a_signature_of_a_stranger_is_refused_with_the_key(
    tmp_path: Path, repository: Repository, signers: Signers
) -> None:
    signers.allow(signers.make("ann"))
    sign_with(repository, signers.make("eve"))
    repository.commit({"a": "1"})
    with pytest.raises(WrongSignature, match=r"by ED25519 key SHA256:\S+, which is not among"):
        check(repository, tmp_path / "mirror", signers)


def test_a_signature_of_another_commit_is_refused(
    tmp_path: Path, repository: Repository, signers: Signers
) -> None:
    key = signers.make("ann")
    signers.allow(key)
    sign_with(repository, key)
    signed = repository.commit({"a": "1"})
    content = repository.git("cat-file", "commit", signed) + "\nand more\n"
    forged = repository.git("hash-object", "-t", "commit", "-w", "--stdin", given=content.encode())
    repository.git("update-ref", "refs/heads/main", forged)
    with pytest.raises(WrongSignature, match="is not good"):
        check(repository, tmp_path / "mirror", signers)


def test_a_key_that_is_not_for_git_or_no_longer_valid_is_refused(
    tmp_path: Path, repository: Repository, signers: Signers
) -> None:
    key = signers.make("ann")
    sign_with(repository, key)
    repository.commit({"a": "1"})
    for options in ('namespaces="file"', 'valid-before="20200101"'):
        signers.file.unlink(missing_ok=True)
        signers.allow(key, options)
        with pytest.raises(WrongSignature):
            check(repository, tmp_path / "mirror", signers)


def test_signers_in_the_repository_count_for_nothing(
    tmp_path: Path, repository: Repository, signers: Signers
) -> None:
    signers.allow(signers.make("ann"))
    eve = signers.make("eve")
    sign_with(repository, eve)
    public = " ".join(eve.with_suffix(".pub").read_text().split()[:2])
    repository.git("config", "gpg.ssh.allowedSignersFile", ".allowed_signers")
    repository.commit({".allowed_signers": f"eve@example.org {public}\n"})
    with pytest.raises(WrongSignature):
        check(repository, tmp_path / "mirror", signers)


def test_signed_tags_are_checked_instead_of_or_besides_commits(
    tmp_path: Path, repository: Repository, signers: Signers
) -> None:
    key = signers.make("ann")
    signers.allow(key)
    repository.commit({"a": "1"})
    repository.settings["user.signingKey"] = str(key)
    repository.git("tag", "--sign", "v1.0.0", "--message", "one")
    repository.git("tag", "--annotate", "v1.1.0", "--message", "unsigned")
    repository.git("tag", "v1.2.0")

    def tag(name: str, mode: str) -> Signer | None:
        return check(repository, tmp_path / "mirror", signers, ref={"tag": name}, mode=mode)

    assert tag("v1.0.0", "Tag") is not None
    with pytest.raises(NotSigned, match="commit"):
        tag("v1.0.0", "TagAndHEAD")
    with pytest.raises(NotSigned, match=r"tag v1\.1\.0 is not signed"):
        tag("v1.1.0", "Tag")
    with pytest.raises(NotSigned, match="is only a name"):
        tag("v1.2.0", "Tag")


def test_a_tag_counts_as_it_was_fetched_whoever_fetches_another_one_meanwhile(
    tmp_path: Path, repository: Repository, signers: Signers
) -> None:
    key = signers.make("ann")
    signers.allow(key)
    repository.settings |= {"user.signingKey": str(key)}
    rule = {"allowedSignersFile": str(signers.file), "mode": "Tag"}

    async def meanwhile() -> None:
        mirror = repository.mirror(tmp_path / "mirror", verify=rule, ref={"semver": "1.x"})
        home = tmp_path / "root"
        source = GitRepository(mirror.source, home, tmp_path / "run", {})
        commits = []
        for number in range(2):
            repository.commit({"compose.yaml": f"services: {{web: {{image: i{number}}}}}\n"})
            repository.git("tag", "-s", "-m", "signed", f"v1.{number}.0")
            commits.append((await source.fetch(accept_rewrite=False)).commit)
        for number, commit in enumerate(commits):
            (project,) = (await source.render(commit)).values()
            assert project["services"]["web"]["image"] == f"i{number}"

    asyncio.run(meanwhile())


def test_a_signed_tag_under_another_name_is_refused(
    tmp_path: Path, repository: Repository, signers: Signers
) -> None:
    key = signers.make("ann")
    signers.allow(key)
    repository.commit({"a": "1"})
    repository.settings["user.signingKey"] = str(key)
    repository.git("tag", "--sign", "v1.0.0", "--message", "old and vulnerable")
    repository.git("update-ref", "refs/tags/v9.0.0", repository.git("rev-parse", "v1.0.0"))
    with pytest.raises(WrongSignature, match="signed as a tag of another name"):
        check(repository, tmp_path / "mirror", signers, ref={"semver": "*"}, mode="Tag")


def test_a_source_that_asks_for_nothing_gets_nothing(
    tmp_path: Path, repository: Repository
) -> None:
    repository.commit({"a": "1"})

    async def fetch() -> Signer | None:
        mirror = repository.mirror(tmp_path / "mirror")
        return await verify(mirror, await mirror.fetch())

    assert asyncio.run(fetch()) is None


def test_a_missing_file_of_signers_is_no_reason_to_trust(
    tmp_path: Path, repository: Repository, signers: Signers
) -> None:
    sign_with(repository, signers.make("ann"))
    repository.commit({"a": "1"})
    with pytest.raises(GitOpsError, match=r"cannot read .*allowed_signers"):
        check(repository, tmp_path / "mirror", signers)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="needs gpg")
def test_openpgp_signatures_are_checked_by_a_keyring(tmp_path: Path, signers: Signers) -> None:
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)

    def gpg(*words: str) -> bytes:
        command = ("gpg", "--homedir", str(home), "--batch", "--quiet", *words)
        return subprocess.run(command, check=True, capture_output=True).stdout

    def make(name: str) -> Path:
        gpg("--passphrase", "", "--quick-generate-key", f"{name}@example.org", "ed25519", "sign")
        keyring = tmp_path / f"{name}.gpg"
        keyring.write_bytes(gpg("--export", f"{name}@example.org"))
        return keyring

    try:
        ann, bob = make("ann"), make("bob")
        wrapper = tmp_path / "gpg-of-ann"
        wrapper.write_text(f'#!/bin/sh\nexec gpg --homedir {home} "$@"\n')
        wrapper.chmod(0o755)
        repository = Repository(
            tmp_path / "repository",
            **{
                "gpg.program": str(wrapper),
                "user.signingKey": "ann@example.org",
                "commit.gpgSign": "true",
            },
        )
        repository.commit({"a": "1"})

        async def by(keyring: Path) -> Signer | None:
            mirror = repository.mirror(tmp_path / "mirror", verify={"gpgKeyringFile": str(keyring)})
            return await verify(mirror, await mirror.fetch())

        signer = asyncio.run(by(ann))
        assert signer is not None
        assert "ann@example.org" in signer.name
        with pytest.raises(SignatureError, match="not among the allowed signers"):
            asyncio.run(by(bob))
        signers.allow(signers.make("ann"))
        with pytest.raises(SignatureError):
            check(repository, tmp_path / "mirror", signers)
    finally:
        subprocess.run(("gpgconf", "--homedir", str(home), "--kill", "all"), check=False)
