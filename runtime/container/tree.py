"""Opens the files of a container, running or stopped, as one directory descriptor.

A running container is entered through its first process's root as the kernel knows it, a
stopped one through its root file system, mounted for us and nobody else. Every mount in it is
where the container sees it, and stays there for as long as the tree is open.

No tree should be kept open: it keeps the container's overlay mounted past its end, and the
kernel does not define what two overlays do that share a writable layer.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from runtime.container.config import ContainerConfig
from runtime.container.containers import Containers, create_sources
from runtime.container.mounting import Root, take_images, take_sources
from runtime.container.paths import Instance
from runtime.container.prepare import provided
from runtime.container.record import boot_id, read_start
from runtime.container.rootfs import Bind, Filesystem, ImageTree, mount_operations, root_overlay
from runtime.container.seed import wants_seed
from runtime.errors import InvalidState
from runtime.linux import files, mounts, namespaces, process

T = TypeVar("T")
_SETTLING = 0.005
_SETTLED = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """`fd` is the top directory of the container that `config` describes."""

    fd: int
    config: ContainerConfig
    running: bool


@contextlib.contextmanager
def open_tree(root: Path, run: Path, id: str, *, writing: bool = False) -> Iterator[Tree]:
    """The files of a container with its volumes; a stopped one cannot start meanwhile.

    With `writing` neither can one that ends meanwhile, a root that the container has for reading
    only is writable, and what only a running container has (tmpfs, proc, sysfs, /dev) is empty
    and read-only in a stopped one. Raises NotFound, InvalidState where the container has ended
    and that is not written down within 10 s, RuntimeFault.
    """
    deadline = time.monotonic() + _SETTLED
    while True:
        with contextlib.ExitStack() as held:
            try:
                tree = _open(held, Containers(root, run), Instance(root, run), id, writing=writing)
            except InvalidState:
                if time.monotonic() > deadline:
                    raise
            else:
                yield tree
                return
        # It has ended, and its monitor is writing that down: a matter of one fsync, of which
        # nothing tells.
        time.sleep(_SETTLING)


def _open(
    held: contextlib.ExitStack,
    containers: Containers,
    instance: Instance,
    id: str,
    *,
    writing: bool,
) -> Tree:
    """Raises InvalidState where the container has just ended."""
    if writing:
        held.enter_context(containers.held(id))
    if containers.get(id).status in ("running", "paused"):
        fd = _enter_running(held, instance, id, writing=writing)
        return Tree(fd=fd, config=containers.config(id), running=True)
    if not writing:
        held.enter_context(containers.held(id))
    config = containers.config(id)
    fd = _mount_stopped(held, instance, config, writing=writing)
    return Tree(fd=fd, config=config, running=False)


def _enter_running(
    held: contextlib.ExitStack, instance: Instance, id: str, *, writing: bool
) -> int:
    ended = InvalidState(f"container {id[:12]}", "not running", "reach the files of")
    started = read_start(instance.container(id).state)
    if started is None or started.boot != boot_id():
        raise ended
    pidfd = process.open_pidfd(started.pid, started.pid_started)
    if pidfd is None:
        raise ended
    held.callback(os.close, pidfd)
    try:
        # Its mounts stay together when it ends.
        namespace = os.open(f"/proc/{started.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        held.callback(os.close, namespace)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        fd = os.open(f"/proc/{started.pid}/root", flags)
        held.callback(os.close, fd)
    except FileNotFoundError as error:
        raise ended from error
    # The pid may have been another's only if its owner has ended.
    if process.start_time(started.pid) != started.pid_started:
        raise ended
    if writing and os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        copy = _apart(lambda: _writable_copy(namespace, fd))
        held.callback(os.close, copy)
        return copy
    return fd


def _writable_copy(namespace: int, root: int) -> int:
    """A tree of the same mounts in which the topmost one can be written to.

    Only a process in the mount namespace may take it (open_tree(2)). It must load nothing while it
    is in there, where paths are the container's.
    """
    namespaces.unshare(namespaces.CLONE_FS)
    namespaces.join(namespace, namespaces.CLONE_NEWNS)
    copy = mounts.clone_tree(root, recursive=True)
    mounts.set_attributes(copy, clear=mounts.MOUNT_ATTR_RDONLY)
    return copy


def _mount_stopped(
    held: contextlib.ExitStack, instance: Instance, config: ContainerConfig, *, writing: bool
) -> int:
    paths = instance.container(config.id)
    operations = mount_operations(config, provided(config, paths))
    if writing:
        create_sources(config)
        if wants_seed(config):
            held.enter_context(files.locked(instance.containers / ".seed"))

    def assemble() -> tuple[int, int]:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.change_propagation("/", mounts.MS_SLAVE | mounts.MS_REC)
        binds = tuple(operation for operation in operations if isinstance(operation, Bind))
        sources = take_sources(binds)
        images = take_images(operations, str(paths.place))
        assembled = Root(root_overlay(config, paths), str(paths.place))
        assembled.add_sources(sources)
        assembled.add_sources(images)
        try:
            if writing:
                assembled.seed_volumes(config)
            covers = []
            for operation in operations:
                if isinstance(operation, Bind | ImageTree):
                    assembled.run(operation)
                elif writing and isinstance(operation, Filesystem):
                    covers.append(assembled.cover(operation.target))
            for cover in covers:
                # Mount points below it have been made by now.
                mounts.set_attributes(cover, set=mounts.MOUNT_ATTR_RDONLY)
                os.close(cover)
            namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            assembled.close()
            raise
        return assembled.fd, namespace

    fd, namespace = _apart(assemble)
    held.callback(os.close, namespace)
    held.callback(os.close, fd)
    return fd


def _apart(work: Callable[[], T]) -> T:
    """Run in a thread that ends: what it does to its own namespaces concerns nobody else."""
    with ThreadPoolExecutor(1, thread_name_prefix="mounts") as thread:
        return thread.submit(work).result()
