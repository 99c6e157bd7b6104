"""A first process for programs that are not made to be one (Compose `init: true`).

It passes signals on, reaps what is orphaned, and ends with its child's exit code, as tini
does. It is the container's process 1 itself, already confined, so nothing is mounted into the
container for it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from runtime.linux import process

_NOT_FORWARDED = {signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU}


def run(start: Callable[[], None], *, tty: bool) -> None:
    """Fork; the child calls `start`, which execs; this process looks after it and never returns."""
    everything = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, everything)
    # Python leaves SIGCHLD to its default, which would never wake sigwait.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        process.die_with_parent()
        os.setpgid(0, 0)
        if tty:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        start()
        return
    process.set_name("init")
    process.set_command_line("init")
    process.close_from(3)
    while True:
        number = signal.sigwait(everything)
        if number == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                os._exit(_exit_code(status))
        elif number not in _NOT_FORWARDED:
            os.kill(child, number)


def _reap(child: int) -> int | None:
    """Collect every ended process; the status of `child` where it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
