"""Network namespaces bound to files, and threads that work inside one.

A thread has its own network namespace, so a namespace is made, and entered, by a thread that
ends with the job; the process as a whole never leaves its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from runtime.linux import mounts
from runtime.linux.namespaces import CLONE_NEWNET, join, unshare

T = TypeVar("T")

_NSFS_MAGIC = 0x6E736673  # include/uapi/linux/magic.h


def create(path: Path, prepare: Callable[[], None]) -> None:
    """A new network namespace, bound at the existing empty file `path`.

    `prepare` runs inside it before it can be seen there, so that a namespace that is bound
    is a finished one.
    """

    def make() -> None:
        unshare(CLONE_NEWNET)
        prepare()
        mounts.bind("/proc/thread-self/ns/net", str(path))

    _in_thread(make)


def run_inside(namespace: int, job: Callable[[], T]) -> T:
    """Run `job` in the network namespace behind the descriptor and give what it gives."""

    def enter() -> T:
        join(namespace, CLONE_NEWNET)
        return job()

    return _in_thread(enter)


def open_bound(path: Path) -> int | None:
    """A descriptor of the namespace bound at `path`; None when there is none (any more)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if mounts.filesystem_type(fd) != _NSFS_MAGIC:
        os.close(fd)
        return None
    return fd


def is_bound(path: Path) -> bool:
    fd = open_bound(path)
    if fd is None:
        return False
    os.close(fd)
    return True


def release(path: Path) -> None:
    """Let go of the namespace bound at `path`, and of the file.

    The namespace, with every link in it, goes when its last process has ended.
    """
    while is_bound(path):
        mounts.unmount(str(path), mounts.MNT_DETACH)
    path.unlink(missing_ok=True)


def _in_thread(job: Callable[[], T]) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(job())
        except BaseException as exc:  # handed to the caller below
            failures.append(exc)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
