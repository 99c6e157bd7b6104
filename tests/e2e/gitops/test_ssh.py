"""A source behind a real sshd: nothing is taken from a server whose key is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.gitops.ssh_server import SshServer, needs_sshd, ssh_server

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay, Host
    from tests.e2e.gitops.conftest import Repository

pytestmark = [pytest.mark.root, pytest.mark.timeout(180), needs_sshd]

PORT = 9022


@pytest.fixture
def server(host: Host, tmp_path: Path) -> Iterator[SshServer]:
    (tmp_path / "ssh").mkdir()
    with ssh_server(tmp_path / "ssh", PORT, host.inside) as found:
        yield found


def test_a_server_is_believed_once_its_key_is_known(
    bay: Bay,
    repository: Repository,
    server: SshServer,
    follow: Callable[..., Any],
    stack: Callable[..., str],
    tmp_path: Path,
) -> None:
    commit = repository.push({"compose.yaml": stack("web")})
    hosts = tmp_path / "hosts"
    hosts.write_text("")
    url = server.url(repository.bare)
    credentials = {"sshKeyFile": str(server.key), "knownHostsFile": str(hosts)}
    source, added = follow(repository, url=url, credentials=credentials)
    assert added.status == 1 and "host key is known for" in added.err, str(added)
    status = source.status()
    assert (status["state"], status["sync"]) == ("AuthenticationFailed", "Unknown")
    assert status["last_attempted"] is None and not status["projects"]

    hosts.write_text(server.known_hosts.read_text())
    synced = source.sync()
    assert synced.status == 0, str(synced)
    assert source.applied() == commit and source.status()["sync"] == "Synced"
