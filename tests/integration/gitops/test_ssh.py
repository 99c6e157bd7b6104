"""Repositories behind a real sshd: whose key is believed, on either side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.gitops.errors import AuthenticationFailed, Unreachable
from orchestrator.gitops.mirror import Mirror, Revision
from orchestrator.gitops.source import GitSource
from tests.integration.gitops.repository import Repository, needs_git
from tests.integration.gitops.ssh_server import (
    SshServer,
    free_port,
    make_key,
    needs_sshd,
    public,
    ssh_server,
)

pytestmark = [needs_git, needs_sshd, pytest.mark.root]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    (tmp_path / "ssh").mkdir()
    with ssh_server(tmp_path / "ssh", free_port()) as found:
        yield found


def fetch(server: SshServer, mirror: Path, repository: Path, **credentials: str) -> Revision:
    given = {"sshKeyFile": str(server.key), "knownHostsFile": str(server.known_hosts)}
    source = GitSource.model_validate(
        {"name": "shop", "url": server.url(repository), "credentials": {**given, **credentials}}
    )
    return asyncio.run(Mirror(mirror, source).fetch())


def test_a_repository_is_fetched_where_both_keys_are_known(
    tmp_path: Path, repository: Repository, server: SshServer
) -> None:
    commit = repository.commit({"a": "1"})
    assert fetch(server, tmp_path / "mirror", repository.path).commit == commit


def test_a_server_whose_key_is_unknown_or_another_is_not_believed(
    tmp_path: Path, repository: Repository, server: SshServer
) -> None:
    repository.commit({"a": "1"})
    hosts = tmp_path / "hosts"
    other = public(make_key(tmp_path / "other"))
    for known, told in (
        ("", "host key is known for"),
        (f"[127.0.0.1]:{server.port} {other}\n", "host key .*changed"),
    ):
        hosts.write_text(known)
        with pytest.raises(AuthenticationFailed, match=told) as caught:
            fetch(server, tmp_path / "mirror", repository.path, knownHostsFile=str(hosts))
        assert caught.value.hint is not None and "knownHostsFile" in caught.value.hint
        # Nobody's key is learnt by asking.
        assert hosts.read_text() == known


def test_a_key_that_the_server_does_not_know_or_that_cannot_be_used_is_refused(
    tmp_path: Path, repository: Repository, server: SshServer
) -> None:
    repository.commit({"a": "1"})
    stranger = make_key(tmp_path / "stranger")
    with pytest.raises(AuthenticationFailed, match=r"[Pp]ermission denied"):
        fetch(server, tmp_path / "mirror", repository.path, sshKeyFile=str(stranger))
    with pytest.raises(AuthenticationFailed, match=r"[Pp]ermission denied"):
        fetch(server, tmp_path / "mirror", repository.path, sshKeyFile=str(tmp_path / "none"))


def test_a_repository_that_is_not_there_is_told(
    tmp_path: Path, repository: Repository, server: SshServer
) -> None:
    with pytest.raises(Unreachable, match="does not appear to be a git repository"):
        fetch(server, tmp_path / "mirror", tmp_path / "nothing")
