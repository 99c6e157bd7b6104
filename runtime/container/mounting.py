"""Puts a container's root together: runs the operations of `rootfs` by file descriptors.

Runs in the container's own mount namespace, between fork and exec, with the host's tree
still reachable. What the image or a volume holds is never trusted: each target is resolved
inside the new root (openat2(2), RESOLVE_IN_ROOT), and mounts go onto descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence

from runtime.cgroups.manager import hierarchies
from runtime.container import seed
from runtime.container.config import ContainerConfig
from runtime.container.overlay import mount_overlay
from runtime.container.rootfs import (
    Bind,
    Filesystem,
    HostDevice,
    ImageTree,
    Link,
    Mask,
    Node,
    Operation,
    Overlay,
    ReadOnly,
    SharedMemory,
)
from runtime.errors import ContainerStartError
from runtime.linux import files, mounts, namespaces, process


@contextlib.contextmanager
def step(name: str, message: str, path: str | None = None) -> Iterator[None]:
    """Turn an OSError inside into a ContainerStartError that says what was attempted on what."""
    try:
        yield
    except OSError as error:
        raise ContainerStartError(
            message, step=name, path=path, errno=error.errno or 0, hint=_hint(name, error)
        ) from error


def _hint(name: str, error: OSError) -> str | None:
    if name == "root" and error.errno == errno.EINVAL:
        return f"the kernel said: {error.strerror}"
    if name == "bind" and error.errno == errno.ENOENT:
        return "create the source, on the host or in the volume, or let a volume be created"
    if name == "image" and error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "the image has no such subpath"
    if name == "bind" and error.errno == errno.EXDEV:
        return "a link there leads out of the directory that containers share"
    return None


class Root:
    """The new root while it is put together; `fd` is its top directory."""

    def __init__(self, overlay: Overlay, place: str, shared_memory: int | None = None) -> None:
        """Mount `overlay` on the empty directory `place`.

        `shared_memory` is a detached mount for the operation of that name.
        """
        with step("root", "mount the root file system"):
            self.fd = mount_overlay(overlay, place)
        self.devpts: int | None = None
        self._empty: int | None = None
        self._sources: dict[Bind | ImageTree | Filesystem, int] = {}
        self._shared_memory = shared_memory

    def add_sources(
        self, sources: Mapping[Bind, int] | Mapping[ImageTree, int] | Mapping[Filesystem, int]
    ) -> None:
        """Take over what `take_sources`, `take_images` or `make_filesystems` gave: these
        descriptors are the root's to close."""
        for operation, tree in sources.items():
            self._sources[operation] = tree

    def seed_volumes(self, config: ContainerConfig) -> None:
        """Fill each empty volume that asks for it with what the image has at its place."""
        seeded = {mount.source for mount in config.mounts if mount.seed}
        for bind, tree in self._sources.items():
            if isinstance(bind, Bind) and bind.source in seeded:
                with step("seed", "copy the image's content into", bind.source):
                    seed.seed(self.fd, bind.target, tree)

    def close(self) -> None:
        """Let go of what has been put together so far."""
        for fd in (self.fd, *self._sources.values(), self.devpts, self._empty):
            if fd is not None:
                os.close(fd)
        self._sources.clear()

    def run(self, operation: Operation) -> None:
        match operation:
            case Bind():
                with step("bind", f"mount {operation.source} at", operation.target):
                    self._bind(operation)
            case ImageTree():
                with step("bind", "mount an image at", operation.target):
                    self._mount_image(operation)
            case Filesystem(kind="cgroup"):
                with step("mount", "mount control groups at", operation.target):
                    self._cgroups(operation)
            case Filesystem():
                with step("mount", f"mount {operation.kind} at", operation.target):
                    self._filesystem(operation)
            case SharedMemory():
                with step("mount", "share the memory at", operation.target):
                    self._share_memory(operation.target)
            case Node():
                with step("device", "create device", operation.path):
                    self._node(operation)
            case HostDevice():
                with step("device", f"give device {operation.source} as", operation.target):
                    self._device(operation)
            case Link():
                with step("device", "create link", operation.path):
                    self._link(operation)
            case Mask():
                with step("mask", "mask", operation.path):
                    self._mask(operation.path)
            case ReadOnly():
                with step("mask", "make read-only", operation.path):
                    self._read_only(operation.path)

    def cover(self, target: str) -> int:
        """Put an empty directory in memory over `target`; the mount, for the caller to close."""
        with step("mount", "cover", target):
            tree = mounts.new_filesystem("tmpfs", (("mode", "755"),))
            self.attach_at(tree, target, directory=True)
        return tree

    def make_read_only(self) -> None:
        with step("root", "make the root file system read-only"):
            mounts.set_attributes(self.fd, set=mounts.MOUNT_ATTR_RDONLY)

    def attach_at(self, tree: int, target: str, *, directory: bool, strict: bool = False) -> None:
        """Put the detached mount `tree` at `target`, making the mount point where missing."""
        place = self._place(target, directory=directory, strict=strict)
        try:
            mounts.attach(tree, place)
        finally:
            os.close(place)

    def _place(self, target: str, *, directory: bool, strict: bool) -> int:
        if strict:
            # A symbolic link in the image at /proc, /sys or /dev (CVE-2019-19921, CVE-2026-41579).
            with contextlib.suppress(FileNotFoundError):
                return files.openat2(
                    self.fd,
                    target.lstrip("/"),
                    os.O_PATH | os.O_DIRECTORY,
                    resolve=files.RESOLVE_BENEATH | files.RESOLVE_NO_SYMLINKS,
                )
        if directory:
            return files.make_directories_in_root(self.fd, target)
        return files.make_file_in_root(self.fd, target)

    def _bind(self, bind: Bind) -> None:
        tree = self._sources.pop(bind)
        try:
            attributes = bind.attributes | (mounts.MOUNT_ATTR_RDONLY if bind.read_only else 0)
            propagation = mounts.PROPAGATION[bind.propagation]
            mounts.set_attributes(
                tree,
                set=attributes,
                propagation=propagation & ~mounts.MS_REC,
                recursive=bind.recursive,
            )
            self.attach_at(tree, bind.target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
        finally:
            os.close(tree)

    def _mount_image(self, image: ImageTree) -> None:
        tree = self._sources.pop(image)
        try:
            mounts.set_attributes(tree, set=mounts.MOUNT_ATTR_RDONLY)
            self.attach_at(tree, image.target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
        finally:
            os.close(tree)

    def _filesystem(self, operation: Filesystem) -> None:
        tree = self._sources.pop(operation, None)
        if tree is None:
            tree = _new_filesystem(operation)
        self.attach_at(tree, operation.target, directory=True, strict=operation.strict)
        if operation.kind == "devpts":
            self.devpts = tree
        else:
            os.close(tree)

    def _share_memory(self, target: str) -> None:
        if self._shared_memory is None:
            raise OSError(errno.ENOENT, "no memory to share", target)
        mounts.set_attributes(self._shared_memory, propagation=mounts.MS_PRIVATE)
        self.attach_at(self._shared_memory, target, directory=True)
        os.close(self._shared_memory)

    def _cgroups(self, operation: Filesystem) -> None:
        found = hierarchies()
        if not found.v1:
            tree = mounts.new_filesystem(
                "cgroup2", attributes=operation.attributes, source="cgroup"
            )
            self.attach_at(tree, operation.target, directory=True)
            os.close(tree)
            return
        # Without a control group namespace of our own this would show the host's tree; with it
        # every hierarchy begins at the container's group.
        shelf = mounts.new_filesystem(
            "tmpfs", (("mode", "755"),), attributes=operation.attributes & ~mounts.MOUNT_ATTR_RDONLY
        )
        self.attach_at(shelf, operation.target, directory=True)
        for name in sorted({path.name for path in found.v1.values()}):
            flags = [(option, None) for option in name.split(",")]
            if name == "systemd":
                flags = []
            try:
                tree = mounts.new_filesystem(
                    "cgroup",
                    flags or [("none", None), ("name", "systemd")],
                    attributes=operation.attributes,
                    source="cgroup",
                )
            except OSError as error:
                if error.errno in (errno.EBUSY, errno.EINVAL, errno.ENOENT):
                    continue  # a controller that is mounted under another set of options
                raise
            os.mkdir(name, 0o755, dir_fd=shelf)
            self.attach_at(tree, f"{operation.target}/{name}", directory=True)
            os.close(tree)
        mounts.set_attributes(shelf, set=operation.attributes)
        os.close(shelf)

    def _node(self, node: Node) -> None:
        parent, name = self._parent(node.path)
        try:
            kind = stat.S_IFCHR if node.kind == "c" else stat.S_IFBLK
            _make_node(parent, name, kind | node.mode, os.makedev(node.major, node.minor))
        finally:
            os.close(parent)

    def _device(self, device: HostDevice) -> None:
        status = os.stat(device.source)
        if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise OSError(errno.ENODEV, "not a device", device.source)
        parent, name = self._parent(device.target)
        try:
            _make_node(parent, name, status.st_mode, status.st_rdev)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if (stat.S_IFMT(there.st_mode), there.st_rdev) != (
                stat.S_IFMT(status.st_mode),
                status.st_rdev,
            ):
                raise
        finally:
            os.close(parent)

    def _link(self, link: Link) -> None:
        parent, name = self._parent(link.path)
        try:
            os.symlink(link.to, name, dir_fd=parent)
        finally:
            os.close(parent)

    def _parent(self, path: str) -> tuple[int, str]:
        directory, _, name = path.rpartition("/")
        return files.make_directories_in_root(self.fd, directory), name

    def _existing(self, path: str) -> int | None:
        try:
            return files.open_in_root(self.fd, path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _mask(self, path: str) -> None:
        place = self._existing(path)
        if place is None:
            return
        try:
            cover = self._cover(directory=stat.S_ISDIR(os.fstat(place).st_mode))
            mounts.attach(cover, place)
            if cover != self._empty:
                os.close(cover)
        finally:
            os.close(place)

    def _cover(self, *, directory: bool) -> int:
        """A mount with nothing in it: the null device, or one empty directory for all.

        The first directory gets the file system itself, the others clones of it: a mount that
        is attached nowhere cannot be cloned before kernel 6.15.
        """
        if not directory:
            return mounts.clone_tree(self._null())
        if self._empty is not None:
            return mounts.clone_tree(self._empty)
        self._empty = mounts.new_filesystem(
            "tmpfs", (("mode", "555"),), attributes=mounts.MOUNT_ATTR_RDONLY
        )
        return self._empty

    def _null(self) -> int:
        fd = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
        if os.fstat(fd).st_rdev != os.makedev(1, 3):
            raise OSError(errno.EINVAL, "not the null device", "/dev/null")
        return fd

    def _read_only(self, path: str) -> None:
        place = self._existing(path)
        if place is None:
            return
        try:
            tree = mounts.clone_tree(place, recursive=True)
            mounts.set_attributes(tree, set=mounts.MOUNT_ATTR_RDONLY, recursive=True)
            mounts.attach(tree, place)
            os.close(tree)
        finally:
            os.close(place)


def make_filesystems(operations: Sequence[Operation]) -> dict[Filesystem, int]:
    """Make what needs no root to be made, detached; control groups are mounted at their place."""
    made: dict[Filesystem, int] = {}
    try:
        for operation in operations:
            if isinstance(operation, Filesystem) and operation.kind != "cgroup":
                with step("mount", f"mount {operation.kind} at", operation.target):
                    if operation not in made:
                        made[operation] = _new_filesystem(operation)
    except BaseException:
        for fd in made.values():
            os.close(fd)
        raise
    return made


def _new_filesystem(operation: Filesystem) -> int:
    try:
        return mounts.new_filesystem(
            operation.kind,
            operation.options,
            attributes=operation.attributes,
            source=operation.kind,
        )
    except OSError as error:
        pid_namespace = dict(operation.options).get("pidns")
        if pid_namespace is None or error.errno != errno.EINVAL:
            raise
        return proc_from_inside(pid_namespace, operation.attributes)


def proc_from_inside(pid_namespace: str, attributes: int) -> int:
    """A proc of the namespace at that path, for kernels before 6.17, which give a process that
    of its own namespace only.

    The process that is in there for a moment has an empty root and no descriptor of the host's.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        helper = os.fork()
        if helper == 0:
            try:
                process.die_with_parent()
                namespaces.join_path(pid_namespace, namespaces.CLONE_NEWPID)
                os.fchdir(mounts.new_filesystem("tmpfs"))
                os.chroot(".")
                os.dup2(theirs.fileno(), 3, inheritable=False)
                process.close_from(4)
                inside = os.fork()
                if inside:
                    os.waitpid(inside, 0)  # the first process there may reap nobody
                else:
                    tree = mounts.new_filesystem("proc", attributes=attributes, source="proc")
                    with socket.socket(fileno=3) as channel:
                        socket.send_fds(channel, [b"proc"], [tree])
            finally:
                os._exit(0)
        theirs.close()
        _raw, fds, _flags, _address = socket.recv_fds(ours, 16, 1)
        os.waitpid(helper, 0)
    if not fds:
        raise OSError(errno.EINVAL, "no proc of that pid namespace", pid_namespace)
    os.set_inheritable(fds[0], False)
    return fds[0]


def _clone(bind: Bind) -> int:
    if not bind.beneath:
        return mounts.clone_tree(mounts.AT_FDCWD, bind.source, recursive=bind.recursive)
    top = os.open(bind.beneath, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = os.path.relpath(bind.source, bind.beneath)
        resolve = files.RESOLVE_BENEATH | files.RESOLVE_NO_MAGICLINKS
        source = files.openat2(top, path, os.O_PATH, resolve=resolve)
    finally:
        os.close(top)
    try:
        return mounts.clone_tree(source, recursive=bind.recursive)
    finally:
        os.close(source)


def take_sources(operations: Sequence[Operation]) -> dict[Bind, int]:
    """Clone the mounts behind all binds.

    Before the namespace's propagation is cut, so that a shared mount stays one.
    """
    sources = {}
    try:
        for operation in operations:
            if isinstance(operation, Bind):
                with step("bind", "mount", operation.source):
                    sources[operation] = _clone(operation)
    except BaseException:
        for fd in sources.values():
            os.close(fd)
        raise
    return sources


def take_images(operations: Sequence[Operation], place: str) -> dict[ImageTree, int]:
    """Put together what is mounted of images, each for a moment on the empty directory `place`:
    of a mount that is attached nowhere, no part can be taken before kernel 6.15.

    After the namespace's propagation has been cut.
    """
    trees: dict[ImageTree, int] = {}
    try:
        for operation in operations:
            if isinstance(operation, ImageTree):
                with step("image", "mount an image for", operation.target):
                    trees[operation] = _take_image(operation, place)
    except BaseException:
        for fd in trees.values():
            os.close(fd)
        raise
    return trees


def _take_image(image: ImageTree, place: str) -> int:
    whole = mount_overlay(Overlay(layers=image.layers), place)
    try:
        # An absolute link in an image means a place in that image.
        part = files.open_in_root(whole, image.subpath, os.O_PATH) if image.subpath else whole
        try:
            return mounts.clone_tree(part)
        finally:
            if part != whole:
                os.close(part)
    finally:
        os.close(whole)
        mounts.unmount(place, mounts.MNT_DETACH)


def _make_node(parent: int, name: str, mode: int, device: int) -> None:
    """mknod(2) with exactly `mode`: a chmod after it could be led elsewhere by a link."""
    mask = os.umask(0)
    try:
        os.mknod(name, mode, device, dir_fd=parent)
    finally:
        os.umask(mask)
