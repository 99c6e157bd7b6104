"""A real ssh server on loopback, with keys, configuration and directories of the test's own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin") or ""
needs_sshd = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh") and shutil.which("ssh-keygen")),
    reason="needs sshd and ssh (openssh-server, openssh-client)",
)

# What sshd separates its privileges in is a directory of the host, which is not for a test to make.
_START = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"'


@dataclass(frozen=True, kw_only=True)
class SshServer:
    """Lets root in with `key`, and nobody else; `known_hosts` has its own key."""

    port: int
    key: Path
    known_hosts: Path

    def url(self, repository: Path) -> str:
        return f"ssh://root@127.0.0.1:{self.port}{repository}"


def make_key(path: Path) -> Path:
    words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path))
    subprocess.run(words, check=True)
    return path


def public(key: Path) -> str:
    """A key's public half, without the remark."""
    return " ".join(key.with_suffix(".pub").read_text().split()[:2])


@contextlib.contextmanager
def ssh_server(
    directory: Path, port: int, inside: Callable[..., list[str]] = lambda *words: [*words]
) -> Iterator[SshServer]:
    """Serve from `port` of loopback until the end; `inside` gives the words that run others in
    another network namespace."""
    host_key, user_key = make_key(directory / "host"), make_key(directory / "user")
    (directory / "authorized_keys").write_text(f"{public(user_key)}\n")
    known_hosts = directory / "known hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {public(host_key)}\n")
    config = directory / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\n"
        f"HostKey {host_key}\n"
        f"AuthorizedKeysFile {directory}/authorized_keys\n"
        f"PidFile {directory}/pid\n"
        # The test's directory may belong to anybody.
        "StrictModes no\n"
        "UsePAM no\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
    )
    # With a namespace of processes, nothing of a connection outlives the server.
    apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    words = (*apart, "sh", "-c", _START, "sh", SSHD, "-D", "-e", "-f", str(config))
    with (
        (directory / "log").open("w+") as log,
        subprocess.Popen(inside(*words), stderr=log, stdin=subprocess.DEVNULL) as process,
    ):
        try:
            _wait_until_it_listens(process, directory / "log")
            yield SshServer(port=port, key=user_key, known_hosts=known_hosts)
        finally:
            process.kill()


def _wait_until_it_listens(process: subprocess.Popen[bytes], log: Path) -> None:
    with subprocess.Popen(
        (
            "tail",
            "--follow",
            "--lines=+1",
            f"--pid={process.pid}",
            "--sleep-interval=0.1",
            str(log),
        ),
        stdout=subprocess.PIPE,
        text=True,
    ) as said:
        assert said.stdout is not None
        for line in said.stdout:
            if "Server listening on" in line:
                said.kill()
                return
    raise AssertionError(f"sshd ended: {log.read_text()}")


def free_port() -> int:
    """A port of loopback that nobody has at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
