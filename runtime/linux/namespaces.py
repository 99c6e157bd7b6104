"""Namespaces: unshare(2), setns(2), sethostname(2)."""

from __future__ import annotations

import os

from runtime.linux import libc

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000


def unshare(flags: int) -> None:
    libc.check(libc.unshare(flags), "unshare")


def join(fd: int, flags: int = 0) -> None:
    """Enter the namespace behind `fd`, or with a pidfd all the kinds that `flags` names."""
    libc.check(libc.setns(fd, flags), "setns")


def join_path(path: str, flags: int) -> None:
    """Enter the namespace bound at `path`; `flags` names its kind, which the kernel checks."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.check(libc.setns(fd, flags), "setns", path)
    finally:
        os.close(fd)


def set_hostname(name: str) -> None:
    raw = name.encode()
    libc.check(libc.sethostname(raw, len(raw)), "sethostname", name)


def set_domainname(name: str) -> None:
    raw = name.encode()
    libc.check(libc.setdomainname(raw, len(raw)), "setdomainname", name)
