"""Starts the daemon when none answers, and waits until it does.

Two commands that find no daemon at the same moment start one: whoever holds the lock
looks again before starting. The daemon says that it is ready by a byte through an
inherited pipe; a pipe that closes without one means that it failed, and the end of
its log says why.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys

from orchestrator.client.errors import DaemonStartError, DaemonUnreachable
from orchestrator.client.http import Client
from orchestrator.version import VERSION

SOCKET = "bayplan.sock"
LOG = "daemon.log"
_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOG_TAIL = 5  # lines
_PATIENCE = 30_000  # milliseconds


def command(root: str, run: str) -> list[str]:
    """The daemon's command line; `-I` keeps the current directory out of its imports."""
    module = "orchestrator.supervisor.daemon"
    return [sys.executable, "-I", "-m", module, "--root", root, "--run", run]


def environment(environ: dict[str, str]) -> dict[str, str]:
    """What of the person's environment a long-lived daemon may keep."""
    kept = {name: environ[name] for name in _KEPT_VARIABLES if name in environ}
    kept.setdefault("PATH", _DEFAULT_PATH)
    return kept


def answering(run: str) -> Client | None:
    """A client of the daemon of `run`, or None when nobody listens."""
    client = Client(os.path.join(run, SOCKET))
    try:
        client.connect().close()
    except DaemonUnreachable as exc:
        if isinstance(exc.__cause__, PermissionError):
            raise
        return None
    return client


def ensure(root: str, run: str) -> Client:
    """A client of a daemon that answers, started if there was none.

    Raises DaemonStartError, or DaemonUnreachable when the caller may not use it.
    """
    client = answering(run)
    if client is not None:
        return _renewing(root, run)
    if os.geteuid() != 0:
        raise DaemonUnreachable(
            "no daemon is running, and only root can start it", hint="run bay as root (sudo bay …)"
        )
    try:
        os.makedirs(run, mode=0o755, exist_ok=True)
        lock = os.open(
            os.path.join(run, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as exc:
        raise DaemonStartError(f"prepare {run}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = answering(run)
        if client is None:
            _start(root, run)
        return _renewing(root, run)
    finally:
        os.close(lock)


def _renewing(root: str, run: str) -> Client:
    """A client that has a daemon of another version end, and starts one of ours."""
    if os.geteuid() != 0:
        return Client(os.path.join(run, SOCKET))

    def renew(server: str) -> None:
        print(
            f"the daemon is {server}; starting bayplan/{VERSION} in its place, containers go on",
            file=sys.stderr,
        )
        end(run)
        ensure(root, run)

    return Client(os.path.join(run, SOCKET), server=f"bayplan/{VERSION}", renew=renew)


def end(run: str) -> bool:
    """End the daemon of `run` and wait until it has; False where none answers.

    Raises DaemonStartError when it stays.
    """
    import select

    client = answering(run)
    if client is None:
        return False
    try:
        watched = os.pidfd_open(int(client.get("/v1/version")["pid"]))
    except ProcessLookupError:
        return True
    try:
        with contextlib.suppress(DaemonUnreachable):
            client.post("/v1/shutdown")
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        if not poll.poll(_PATIENCE):
            raise DaemonStartError("the daemon has not ended within 30 seconds")
    finally:
        os.close(watched)
    return True


def _start(root: str, run: str) -> None:
    import subprocess

    log_path = os.path.join(run, LOG)
    ready, ready_child = os.pipe2(os.O_CLOEXEC)
    try:
        with open(log_path, "ab", opener=_private) as log:
            before = log.tell()
            process = subprocess.Popen(
                [*command(root, run), "--guard", "--ready-fd", str(ready_child)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(dict(os.environ)),
                pass_fds=(ready_child,),
                start_new_session=True,
            )
        os.close(ready_child)
        ready_child = -1
        if os.read(ready, 1):
            # It lives on without us; not waiting for it is meant.
            process.returncode = 0
            return
    finally:
        os.close(ready)
        if ready_child >= 0:
            os.close(ready_child)
    status = process.wait()
    tail = _tail(log_path, before)
    raise DaemonStartError(
        f"the daemon did not start (exit status {status})" + (f"\n{tail}" if tail else ""),
        hint=f"its log is {log_path}",
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _tail(path: str, start: int) -> str:
    """The last lines that the log got since it was `start` bytes long, without tracebacks."""
    try:
        with open(path, "rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(start, end - 65536))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    told = [line for line in lines if line.strip() and not line.startswith((" ", "Traceback"))]
    return "\n".join("  " + line for line in told[-_LOG_TAIL:])
