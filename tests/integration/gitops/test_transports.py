"""Sources over http, by git's http-backend, and over ssh, by a program that stands for it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.gitops.errors import (
    AuthenticationFailed,
    GitOpsError,
    RefNotFound,
    TooLarge,
    Unreachable,
)
from orchestrator.gitops.mirror import Mirror, Revision
from orchestrator.gitops.source import GitSource
from tests.integration.gitops.git_server import GitServer, needs_backend
from tests.integration.gitops.repository import Repository, needs_git

pytestmark = [needs_git, needs_backend]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "served" / "shop")


def fetch(server: GitServer, mirror: Path, **changes: Any) -> Revision:
    """What a source at the server's repository has now."""

    async def run() -> Revision:
        async with server.running():
            url = f"{server.url}/shop/.git"
            source = GitSource.model_validate({"name": "shop", "url": url, **changes})
            found = Mirror(mirror, source)
            probed = await found.probe()
            revision = await found.fetch()
            assert probed == revision.commit
            return revision

    return asyncio.run(run())


def test_a_repository_is_fetched_over_http(tmp_path: Path, repository: Repository) -> None:
    first = repository.commit({"a": "1"})
    server = GitServer(repository.path.parent)
    assert fetch(server, tmp_path / "mirror").commit == first
    second = repository.commit({"a": "2"})
    assert fetch(server, tmp_path / "mirror", ref={"branch": "main"}).commit == second
    repository.commit({"a": "3"})
    assert fetch(server, tmp_path / "other", ref={"commit": first}).commit == first


def login(tmp_path: Path, password: str) -> dict[str, Any]:
    file = tmp_path / "password"
    file.write_text(password + "\n")
    return {"credentials": {"username": "ann", "passwordFile": str(file)}}


def test_a_password_comes_from_its_file(tmp_path: Path, repository: Repository) -> None:
    commit = repository.commit({"a": "1"})
    server = GitServer(repository.path.parent, login=("ann", 'hun"ter $2 é'))
    changes = login(tmp_path, 'hun"ter $2 é')
    assert fetch(server, tmp_path / "mirror", **changes).commit == commit
    for place in (tmp_path / "mirror").rglob("*"):
        assert not place.is_file() or b"hun" not in place.read_bytes()


def test_a_wrong_or_missing_password_is_told(tmp_path: Path, repository: Repository) -> None:
    repository.commit({"a": "1"})
    server = GitServer(repository.path.parent, login=("ann", "hunter2"))
    for changes in ({}, login(tmp_path, "hunter3")):
        with pytest.raises(AuthenticationFailed) as caught:
            fetch(server, tmp_path / "mirror", **changes)
        assert "hunter" not in str(caught.value)
        assert not caught.value.transient
        assert caught.value.hint is not None


def test_a_password_is_not_taken_to_where_a_redirect_leads(
    tmp_path: Path, repository: Repository
) -> None:
    repository.commit({"a": "1"})

    async def run() -> None:
        thief = GitServer(repository.path.parent, login=("ann", "hunter2"))
        async with thief.running():
            server = GitServer(repository.path.parent, elsewhere=thief.url)
            async with server.running():
                changes = login(tmp_path, "hunter2")
                url = f"{server.url}/shop/.git"
                source = GitSource.model_validate({"name": "shop", "url": url, **changes})
                with pytest.raises(GitOpsError):
                    await Mirror(tmp_path / "mirror", source).fetch()
        assert thief.requests
        assert all(given is None for _, given in thief.requests)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, Unreachable), (500, Unreachable), (503, Unreachable), (403, AuthenticationFailed)],
)
def test_a_server_that_refuses_is_told_in_one_line(
    tmp_path: Path, repository: Repository, status: int, error: type[GitOpsError]
) -> None:
    with pytest.raises(error) as caught:
        fetch(GitServer(repository.path.parent, status=status), tmp_path / "mirror")
    assert "\n" not in str(caught.value)
    assert str(status) in str(caught.value) or "not found" in str(caught.value)


def test_a_branch_that_is_not_there_is_told(tmp_path: Path, repository: Repository) -> None:
    repository.commit({"a": "1"})
    server = GitServer(repository.path.parent)

    async def run() -> None:
        async with server.running():
            url = f"{server.url}/shop/.git"
            source = GitSource.model_validate(
                {"name": "shop", "url": url, "ref": {"branch": "gone"}}
            )
            with pytest.raises(RefNotFound, match="has no branch gone"):
                await Mirror(tmp_path / "mirror", source).fetch()

    asyncio.run(run())


def test_a_repository_over_the_limit_is_cut_off(tmp_path: Path, repository: Repository) -> None:
    repository.commit({"large": os.urandom(8 * 2**20)})
    with pytest.raises(TooLarge):
        fetch(GitServer(repository.path.parent), tmp_path / "mirror", limits={"size": "1m"})
    left = sum(place.stat().st_size for place in (tmp_path / "mirror").rglob("*"))
    assert left < 4 * 2**20 or not list((tmp_path / "mirror/objects/pack").glob("tmp_*"))


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program named ssh that notes its arguments and runs what it is asked to; where."""
    place = tmp_path / "bin"
    place.mkdir()
    note = tmp_path / "asked"
    script = place / "ssh"
    script.write_text(
        f"#!{sys.executable} -I\n"
        "import json, os, sys\n"
        f"note = {str(note)!r}\n"
        "with open(note, 'w') as file:\n"
        "    json.dump([sys.argv[1:], sorted(os.environ)], file)\n"
        "os.execvp('sh', ['sh', '-c', sys.argv[-1]])\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return note


@pytest.mark.parametrize(
    "form", ["ssh://git@git.example.org:2222{path}", "git@git.example.org:{path}"]
)
def test_ssh_asks_nobody_and_trusts_what_the_source_names(
    tmp_path: Path, repository: Repository, ssh: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.commit({"a": "1"})
    monkeypatch.setenv("GIT_SSH", "/bin/false")
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "hunter2")
    source = GitSource.model_validate(
        {
            "name": "shop",
            "url": form.format(path=repository.path),
            "credentials": {"sshKeyFile": "/keys/a key", "knownHostsFile": "/keys/known hosts"},
        }
    )
    revision = asyncio.run(Mirror(tmp_path / "mirror", source).fetch())
    assert revision.commit == commit
    words, variables = json.loads(ssh.read_text())
    line = shlex.join(words)
    for wanted in ("BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"):
        assert f"-o {wanted}" in line
    assert words[words.index("-i") + 1] == "/keys/a key"
    assert words[words.index("-F") + 1] == "/dev/null"
    assert 'UserKnownHostsFile="/keys/known hosts"' in words
    assert "git@git.example.org" in words
    assert ("-p" in words) == form.startswith("ssh://")
    assert not {"SECRET_OF_THE_DAEMON", "GIT_SSH", "SSH_AUTH_SOCK"} & set(variables)


def test_what_ssh_complains_of_is_told(
    tmp_path: Path, ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin/ssh"
    for complaint, error, told in (
        ("Host key verification failed.", AuthenticationFailed, "host key verification failed"),
        ("git@h: Permission denied (publickey).", AuthenticationFailed, "permission denied"),
        ("ssh: Could not resolve hostname h: x", Unreachable, "could not resolve hostname"),
        ("ssh: connect to host h port 22: Connection refused", Unreachable, "refused"),
    ):
        script.write_text(f"#!/bin/sh\necho {shlex.quote(complaint)} >&2\nexit 255\n")
        source = GitSource(name="shop", url="git@h:x.git")
        with pytest.raises(error) as caught:
            asyncio.run(Mirror(tmp_path / "mirror", source).fetch())
        assert told in str(caught.value).lower()
