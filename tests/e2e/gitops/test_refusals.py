"""Repositories that cannot be followed: each is told clearly, and changes nothing."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay
    from tests.e2e.gitops.conftest import GitServer, Repository

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

Follow = Callable[..., Any]


class Watched:
    """A source that stands at a good commit; `unchanged` looks whether it still does."""

    def __init__(self, bay: Bay, source: Any) -> None:
        self.bay = bay
        self.source = source
        self.good = source.applied()
        self.before = self._world()

    def _world(self) -> list[str]:
        lines = self.bay.ok("-p", self.source.name, "ps", "-a", "--format", "json").splitlines()
        return sorted(container["ID"] for container in map(json.loads, lines))

    def refuses(self, state: str, reason: str, *words: str) -> None:
        """Sync, and see that it is refused for this reason and in these words."""
        result = self.source.sync()
        assert result.status == 1, str(result)
        for word in words:
            assert word in result.err, str(result)
        status = self.source.status()
        assert status["state"] == state, status
        found = status["repository"]["reason"] or status["last_attempted"]["reason"]
        assert found == reason, status
        self.unchanged()

    def unchanged(self) -> None:
        assert self.source.applied() == self.good
        assert self._world() == self.before


@pytest.fixture
def watched(
    bay: Bay, repository: Repository, follow: Follow, stack: Callable[..., str]
) -> Iterator[Callable[..., Watched]]:
    def make(**spec: Any) -> Watched:
        repository.push({"compose.yaml": stack("web")})
        source, added = follow(repository, **spec)
        assert added.status == 0, str(added)
        return Watched(bay, source)

    yield make


def test_a_server_that_does_not_answer_is_asked_again(
    git_server: GitServer,
    repository: Repository,
    watched: Callable[..., Watched],
    stack: Callable[..., str],
    eventually: Callable[..., None],
) -> None:
    found = watched(retry={"limit": 100, "backoff": "100ms", "maxBackoff": "200ms"})
    git_server.stop_answering()
    try:
        newer = repository.push({"compose.yaml": stack("web", COLOUR="blue")})
        result = found.source.sync()
        assert result.status == 1 and "503" in result.err, str(result)
        assert found.source.status()["repository"]["message"]
        found.unchanged()
    finally:
        git_server.answer_again()
    eventually(lambda: found.source.applied() == newer, "the new commit is applied unasked")


def test_a_repository_that_has_gone_is_told_of(
    repository: Repository, watched: Callable[..., Watched]
) -> None:
    found = watched()
    shutil.move(repository.bare, repository.bare.with_suffix(".gone"))
    result = found.source.sync()
    assert result.status == 1 and "not found" in result.err, str(result)
    found.unchanged()


def test_a_branch_that_has_gone_is_told_of(
    repository: Repository, watched: Callable[..., Watched]
) -> None:
    found = watched()
    repository.git("--git-dir", str(repository.bare), "update-ref", "-d", "refs/heads/main")
    found.refuses("RefNotFound", "RefNotFound", "has no branch main")


def test_a_rewritten_branch_is_followed_or_refused_as_the_source_says(
    repository: Repository, watched: Callable[..., Watched], stack: Callable[..., str]
) -> None:
    found = watched(forcePush="refuse")
    repository.git("checkout", "-q", "--orphan", "anew")
    commit = repository.push({"compose.yaml": stack("web", "db")}, force=True)
    found.refuses("Failed", "HistoryRewritten", "was rewritten")
    assert found.source.sync("--force").status == 0
    assert found.source.applied() == commit


def test_a_commit_that_nobody_trusted_has_signed_is_refused(
    repository: Repository,
    follow: Follow,
    bay: Bay,
    stack: Callable[..., str],
    tmp_path: Path,
) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen, which signs and checks")
    for name in ("trusted", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True
        )
    signers = tmp_path / "allowed-signers"
    public = (tmp_path / "trusted.pub").read_text()
    signers.write_text(f"author@example.org {public}")

    def sign_as(name: str) -> None:
        for key, value in (
            ("gpg.format", "ssh"),
            ("user.signingkey", str(tmp_path / name)),
            ("commit.gpgsign", "true"),
        ):
            repository.git("config", key, value)

    sign_as("trusted")
    repository.push({"compose.yaml": stack("web")})
    source, added = follow(repository, verify={"allowedSignersFile": str(signers)})
    assert added.status == 0, str(added)
    found = Watched(bay, source)
    sign_as("stranger")
    repository.push({"compose.yaml": stack("web", "db")})
    found.refuses("Failed", "WrongSignature", "not among the allowed signers")
    repository.git("config", "commit.gpgsign", "false")
    repository.push({"compose.yaml": stack("web", "cache")})
    found.refuses("Failed", "NotSigned", "is not signed")


def test_a_repository_that_is_too_large_is_not_taken(
    repository: Repository, watched: Callable[..., Watched]
) -> None:
    found = watched(limits={"size": "2mb"})
    # What git cannot compress.
    noise = random.Random(1).randbytes(3 * 2**20)
    (repository.work / "noise").write_bytes(noise)
    repository.push({"more": "x"})
    found.refuses("Failed", "TooLarge", "bytes of objects")


def test_a_stack_in_a_submodule_and_a_pointer_of_lfs_are_named(
    git_server: GitServer, repository: Repository, watched: Callable[..., Watched]
) -> None:
    found = watched(paths=["compose.yaml"])
    commit = repository.git("rev-parse", "HEAD")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},part")
    (repository.work / "part").mkdir()
    image = "services:\n  web:\n    image: debian:bookworm\n    volumes: ['./part:/part']\n"
    (repository.work / "compose.yaml").write_text(image)
    repository.git("add", "compose.yaml")
    repository.git("commit", "-q", "-m", "use a submodule")
    repository.git("push", "-q", "origin", "HEAD:main")
    found.refuses("Failed", "SubmodulesUnsupported", "part, which is a submodule")

    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n"
    repository.git("rm", "-q", "--cached", "part")
    (repository.work / "part").rmdir()
    repository.push({"part/data.bin": pointer})
    found.refuses("Failed", "LfsPointer", "part/data.bin", "LFS")


def test_a_source_that_is_none_is_refused_with_its_place(bay: Bay, tmp_path: Path) -> None:
    file = tmp_path / "source.yaml"
    file.write_text(
        "apiVersion: bayplan/v1\nkind: GitSource\nmetadata: {name: shop}\n"
        "spec:\n  url: http://example.org/shop.git\n  intervall: 5m\n"
    )
    result = bay("gitops", "add", str(file))
    assert result.status == 1 and "source.yaml:" in result.err, str(result)
    assert "interval" in result.err
    for verb in ("status", "sync", "history", "suspend", "resume", "rollback", "diff", "rm"):
        result = bay("gitops", verb, "nobody")
        assert result.status == 1, str(result)
        assert "no such source: nobody" in result.err, str(result)
    result = bay("gitops", "listen", "nowhere")
    assert result.status == 1 and "HOST:PORT" in result.err
