"""Forks monitors: a bare interpreter that has imported and compiled all that a start needs.

It listens on one socket, answers one kind of request and decides nothing. It never threads,
so that forking is safe, and it outlives the daemon. `spawn` starts it, `main` is it.

Its interpreter is executed from a read-only mount of its own that is attached nowhere, so
that /proc/<pid>/exe of a process on its way into a container cannot be opened for writing
(CVE-2019-5736).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from runtime.container.children import describe
from runtime.container.config import ContainerConfig
from runtime.container.monitor import Monitor, warm_up
from runtime.container.paths import Instance
from runtime.errors import LauncherError, NotFound, RuntimeFault
from runtime.linux import mounts, process, sockets

# Killing a monitor for want of memory would end a container that may well be innocent.
_OOM_SCORE = "-900"

# Seconds that a connection has to say what it wants, as one at a time is served.
_PATIENCE = 2.0

# Forks first, so that the launcher is nobody's child: who starts it need not wait for its end.
_BOOT = (
    "import os, sys; os.fork() and os._exit(0); sys.path.insert(0, sys.argv[1]);"
    "from runtime.container.launcher import main; main()"
)


def spawn(instance: Instance) -> None:
    """Start a launcher for `instance`; its socket accepts requests when this returns."""
    import subprocess  # needed by whoever spawns, never by the launcher itself

    package_root = str(Path(__file__).resolve().parents[2])
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    listener = sockets.listen(str(instance.launcher_socket))
    sealed = _sealed(interpreter)
    log = os.open(
        instance.launcher_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    arguments = [package_root, str(instance.root), str(instance.run), str(listener.fileno())]
    try:
        subprocess.run(
            [interpreter, "-I", "-S", "-E", "-B", "-c", _BOOT, *arguments],
            executable=f"/proc/self/fd/{sealed}",
            pass_fds=(listener.fileno(), sealed),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={},
            start_new_session=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise LauncherError("start the launcher") from error
    finally:
        os.close(log)
        os.close(sealed)
        listener.close()


def _sealed(interpreter: str) -> int:
    """The interpreter's file, on a read-only mount that no namespace holds."""
    tree = mounts.clone_tree(mounts.AT_FDCWD, interpreter)
    try:
        mounts.set_attributes(tree, set=mounts.MOUNT_ATTR_RDONLY)
    except BaseException:
        os.close(tree)
        raise
    return tree


def main() -> None:
    _package_root, root, run, listener_fd = sys.argv[1:]
    listener = socket.socket(fileno=int(listener_fd))
    os.set_inheritable(listener.fileno(), False)
    _close_others(listener.fileno())
    process.set_name("bay:launcher")
    process.set_command_line(f"bay: launcher of {root}")
    process.prctl(process.PR_SET_DUMPABLE, 0)
    # Whoever starts us may block signals, and be the first choice of the OOM killer.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(_OOM_SCORE)
    process.restore_reserved_signals()
    # Monitors are reaped by the kernel: nobody waits for them here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o022)
    instance = Instance(Path(root), Path(run))
    with contextlib.suppress(RuntimeFault):  # each start will say so again
        warm_up(instance)
    # A collection in a child would copy the pages that it shares with us.
    gc.collect()
    gc.freeze()
    serve(listener, instance)


def _close_others(kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != kept:
            with contextlib.suppress(OSError):
                os.close(fd)


def serve(listener: socket.socket, instance: Instance) -> None:
    """Answer requests until one asks to end.

    {"op": "start", "id", "secrets": {target: content}} is answered by the container's monitor,
    {"op": "end"} by {"ended"}.
    """
    while True:
        try:
            connection, _address = listener.accept()
        except BlockingIOError:
            return  # told to end, and nobody waits any more
        with connection:
            connection.settimeout(_PATIENCE)
            try:
                request, fds = sockets.receive(connection)
            except (EOFError, OSError, ValueError):
                continue  # also for one that connects and says nothing
            for fd in fds:
                os.close(fd)
            if request.get("op") == "end":
                if listener.getblocking():  # else the name is no longer ours
                    with contextlib.suppress(FileNotFoundError):
                        instance.launcher_socket.unlink()
                # Whoever has connected before is still served.
                listener.setblocking(False)
                with contextlib.suppress(OSError):
                    sockets.send(connection, {"ended": os.getpid()})
                continue
            try:
                child = os.fork()
            except OSError as error:
                with contextlib.suppress(OSError):
                    sockets.send(connection, {"error": describe(error)})
                continue
            if child == 0:
                listener.close()
                connection.settimeout(None)
                _monitor(instance, request, connection)


def _monitor(instance: Instance, request: dict[str, Any], connection: socket.socket) -> None:
    """The child: never returns into the launcher's loop."""
    id = str(request.get("id"))
    code = 1
    try:
        os.setsid()
        try:
            config = ContainerConfig.from_json(instance.container(id).config.read_bytes())
            monitor = Monitor(instance, _with_secrets(config, request.get("secrets") or {}))
        except FileNotFoundError as error:
            raise NotFound("container", id) from error
        monitor.run(connection)
        code = 0
    except Exception as error:
        if not isinstance(error, RuntimeFault):
            sys.excepthook(type(error), error, error.__traceback__)
        with contextlib.suppress(OSError):
            sockets.send(connection, {"error": describe(error)})
    finally:
        os._exit(code)


def _with_secrets(config: ContainerConfig, secrets: dict[str, str]) -> ContainerConfig:
    complete = (
        dataclasses.replace(file, content=secrets[file.target]) if file.secret else file
        for file in config.files
    )
    return config.replace(files=tuple(complete))
