"""Gives up what a process that reads hostile input has no need of."""

from __future__ import annotations

import os
import resource

from runtime.linux import namespaces, seccomp

NOBODY = 65534


def limit(*, memory: int, seconds: int, output: int) -> None:
    """Bound this process for good: `memory` in bytes of address space, `seconds` of processor
    time, `output` in bytes of each file that it writes, and no core dump."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # The soft limit's signal ends it; the hard one is for a process that were to catch that.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def seclude() -> None:
    """Leave the network and the rights of root, and get no others. Where this process is not
    root's it has no more rights than whoever started it, and keeps them.

    Raises OSError.
    """
    os.chdir("/")
    seccomp.no_new_privileges()
    if os.geteuid():
        return
    namespaces.unshare(namespaces.CLONE_NEWNET | namespaces.CLONE_NEWIPC)
    os.setgroups(())
    # From here on no capability is left, and no file of the daemon's can be opened.
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
