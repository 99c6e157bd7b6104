"""ssh agents for builds: the person's own, or one that holds a single private key.

Source: ssh-agent(1), ssh-add(1).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runtime.build.scratch import AGENT
from runtime.errors import BuildError

# The agent ends with the shell's input: when we say so, and when we are killed.
_SCRIPT = 'ssh-add -q "$0" </dev/null && echo ready && cat >/dev/null; kill "$SSH_AGENT_PID"'


@contextlib.contextmanager
def agent(id: str, path: Path, scratch: Path) -> Iterator[str]:
    """The socket of an agent for the length of a block: `path` itself, or for a private key
    that of an agent that is started. Raises BuildError."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        reason = (exc.strerror or "").lower()
        raise BuildError(f"the ssh agent or key {id!r}: {path}: {reason}") from exc
    if stat.S_ISSOCK(mode):
        yield str(path)
        return
    with _of_key(id, path, scratch) as socket:
        yield socket


@contextlib.contextmanager
def _of_key(id: str, key: Path, scratch: Path) -> Iterator[str]:
    program = shutil.which("ssh-agent")
    if program is None:
        raise BuildError(
            f"the ssh key {id!r} needs ssh-agent, which is not installed",
            hint="apt-get install openssh-client, or give the socket of an agent",
        )
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=AGENT, dir=scratch) as name:
        socket = os.path.join(name, "socket")
        with subprocess.Popen(
            (program, "-a", socket, "sh", "-c", _SCRIPT, str(key)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            start_new_session=True,  # without a terminal nobody is asked for a passphrase
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            assert process.stderr is not None
            try:
                if process.stdout.readline().strip() != "ready":
                    said = process.stderr.read().strip().splitlines()
                    raise BuildError(
                        f"the ssh key {id!r} cannot be used: {said[0] if said else key}",
                        hint="it must be a private key without a passphrase; an agent can hold "
                        "one with a passphrase",
                    )
                yield socket
            finally:
                process.stdin.close()
                process.wait()
