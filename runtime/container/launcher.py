"""Forks keepers: a bare interpreter that has imported and compiled all that a start needs.

It listens on one socket, forks for whoever asks, and decides nothing. It never threads, so
that forking is safe, and it outlives the daemon, which it starts again where it was killed
(`guard`). `spawn` starts it, `main` is it.

Its interpreter is executed from a read-only mount of its own that is attached nowhere, so
that /proc/<pid>/exe of a process on its way into a container cannot be opened for writing
(CVE-2019-5736).
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.container import locality
from runtime.container.children import answer_error, report_fault
from runtime.container.guard import Guard
from runtime.container.keepers import Keepers
from runtime.container.paths import Instance
from runtime.container.rehearsal import rehearse
from runtime.errors import LauncherError, RuntimeFault
from runtime.linux import mounts, process, sockets

# Killing a keeper for want of memory would end containers that may well be innocent.
_OOM_SCORE = "-900"

# Seconds that a connection has to say what it wants, as one at a time is served.
_PATIENCE = 2.0

# Seconds until another one is taken where no descriptor was free for it.
_AGAIN = 0.1

# Forks first, so that the launcher is nobody's child: who starts it need not wait for its end.
_BOOT = (
    "import os, sys; os.fork() and os._exit(0); sys.path.insert(0, sys.argv[1]);"
    "from runtime.container import locality; locality.load_keeper();"
    "from runtime.container.launcher import main; main()"
)


def identity() -> str:
    """Tells a launcher of other code, of another interpreter or in other namespaces from one
    that a program would start today."""
    package = Path(__file__).resolve().parents[1]
    newest = 0
    for directory, _names, names in os.walk(package):
        for name in names:
            if name.endswith(".py"):
                newest = max(newest, os.stat(os.path.join(directory, name)).st_mtime_ns)
    own = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid")]
    return " ".join((str(package), str(newest), sys.version.split()[0], *own))


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
    arguments = [package_root, str(instance.root), str(instance.run), identity()]
    try:
        subprocess.run(
            [interpreter, "-I", "-S", "-E", "-B", "-c", _BOOT, *arguments, str(listener.fileno())],
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
    _package_root, root, run, own_identity, listener_fd = sys.argv[1:]
    listener = socket.socket(fileno=int(listener_fd))
    os.set_inheritable(listener.fileno(), False)
    _close_others(listener.fileno())
    process.prctl(process.PR_SET_DUMPABLE, 0)
    # Whoever starts us may block signals, and be the first choice of the OOM killer.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(_OOM_SCORE)
    process.restore_reserved_signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o022)
    instance = Instance(Path(root), Path(run))
    try:
        rehearse(instance)
    except (RuntimeFault, OSError, EOFError) as error:
        # Each start will say so again, or cost more memory.
        print(f"rehearse a start: {error}", file=sys.stderr, flush=True)
    process.set_name("bay:launcher")
    process.set_command_line(f"bay: launcher of {root}")
    # Keepers are reaped by the kernel: nobody waits for them here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A collection in a child would copy the pages that it shares with us.
    gc.collect()
    locality.settle()
    gc.freeze()
    Launcher(listener, instance, own_identity).run()


def _close_others(kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != kept:
            with contextlib.suppress(OSError):
                os.close(fd)


class Launcher:
    """Answers requests until one asks to end.

    {"op": "start", "id", "group", "secrets": {target: content}} is answered by the container's
    keeper, {"op": "identity"} by {"identity"}, {"op": "guard", …} not at all (`guard`),
    {"op": "release"} by {"released"}, {"op": "end"} by {"ended"}.
    """

    def __init__(self, listener: socket.socket, instance: Instance, own_identity: str) -> None:
        self._listener = listener
        self._instance = instance
        self._identity = own_identity
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._guard = Guard(self._selector)
        self._keepers = Keepers(instance, self._selector, abandon=self._abandon)
        self._ending = False

    def run(self) -> None:
        registered = self._selector.get_map()
        while not self._ending:
            for key, _events in self._selector.select(self._guard.timeout()):
                # What came before in this round may have closed it.
                if registered.get(key.fd) is key:
                    self._attempt(key.data)
            if not self._ending:
                self._guard.tick()
        # Whoever has connected before the name was taken away is still served.
        self._listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._accept()

    def _attempt(self, work: Callable[[], None]) -> None:
        """Whoever asks for what makes no sense must not end the launcher for the others."""
        try:
            work()
        except Exception as error:
            report_fault(error)

    def _accept(self) -> None:
        try:
            connection, _address = self._listener.accept()
        except BlockingIOError:
            raise
        except OSError as error:
            report_fault(error)
            time.sleep(_AGAIN)  # no descriptor is free; who connects waits
            return
        connection.settimeout(_PATIENCE)
        try:
            request, fds = sockets.receive(connection)
        except Exception:
            # Of one that connects and says nothing, or says what is no message.
            connection.close()
            return
        for fd in fds:
            os.close(fd)
        if request.get("op") == "guard":
            self._guard.take(connection, request)
            return
        with connection, contextlib.suppress(OSError):
            match request.get("op"):
                case "end":
                    if not self._ending:  # else the name is no longer ours
                        self._instance.launcher_socket.unlink(missing_ok=True)
                    self._ending = True
                    sockets.send(connection, {"ended": os.getpid()})
                case "identity":
                    sockets.send(connection, {"identity": self._identity})
                case "release":
                    self._guard.release()
                    sockets.send(connection, {"released": True})
                case _:
                    self._start(connection, request)

    def _start(self, connection: socket.socket, request: dict[str, Any]) -> None:
        try:
            self._keepers.hand_over(request, connection)
        except OSError as error:
            answer_error(connection, error)

    def _abandon(self) -> None:
        """In a child, which answers nobody and guards nothing. The selector is left alone: what
        the kernel keeps of it is the launcher's, too."""
        self._listener.close()
        self._selector.close()
        self._guard.abandon()
