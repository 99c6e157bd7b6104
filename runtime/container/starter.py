"""All of a start that takes more than a moment, in a process of its own that ends with it.

The keeper has other containers to look after and stays for as long as any of them, so that
each page that it writes to is one that it holds alone. What takes time, or touches many pages
(reading the description, control groups, mounts), is done here: a child of the keeper, which
brings forth the container's first process as its own sibling, so that the keeper is the parent
of both. Execs are made in the same way.

Whichever of them is killed, nothing is left unobserved: these processes die with the keeper,
and it undoes the start when they end without having said all (`Kit`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from typing import Any

from runtime.cgroups.manager import open_cgroup
from runtime.container import exec, init, prepare
from runtime.container.children import NULL, close, stdio
from runtime.container.config import ContainerConfig, ExecConfig
from runtime.container.init import Preparation
from runtime.container.kit import Kit, send_kit
from runtime.container.mounting import step
from runtime.container.paths import Instance, is_id
from runtime.container.record import boot_id, read_start, reserve_exit
from runtime.errors import NotFound, RuntimeFault
from runtime.linux import files, mounts, namespaces, process, sockets


def run(instance: Instance, request: dict[str, Any], report: socket.socket) -> None:
    """Start the container that `request` names; returns once its first process is born.

    Tells the kit over `report`, which the first process reports to as well. Raises RuntimeFault
    where the start fails; what was made by then is the keeper's to undo.
    """
    monitor = os.getppid()
    init.stay_with_parent(report.fileno())
    id = str(request.get("id"))
    paths = instance.container(id)
    try:
        description = os.open(paths.config, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound("container", id) from error
    config = _with_secrets(_read_config(description), request.get("secrets") or {})
    config, memory = _share(instance, config)
    where = instance.cgroup(config.id, config.cgroup_parent)
    cgroup = open_cgroup(*where)
    preparation = plan(instance, config, memory)
    paths.run_directory.mkdir(parents=True, exist_ok=True)
    listener = sockets.listen(str(paths.socket))
    cgroup.create(config.resources, prepare.rules(config))
    reserve_exit(paths.exit)
    child_ends, own_ends = stdio(config.stdin_open, tty=config.tty)
    group = cgroup.open()
    if config.pid_namespace == "private":
        with step("namespace", "make a pid namespace"):
            namespaces.unshare(namespaces.CLONE_NEWPID)
    pid = process.fork(into=group, sibling=True)
    if pid == 0:
        close(own_ends)
        init.run(preparation, cgroup, report, child_ends)
    record = {
        "pid": pid,
        "pid_started": process.start_time(pid) or 0,
        "monitor": monitor,
        "monitor_started": process.start_time(monitor) or 0,
        "cgroup_parent": config.cgroup_parent,
        "boot": boot_id(),
    }
    stdin, stdout, stderr = own_ends or (NULL,) * 3
    kit = Kit(
        pid=pid,
        cgroup=where,
        driver=config.log.driver,
        max_size=config.log.max_size,
        max_files=config.log.max_files,
        await_attach=config.await_attach,
        record=json.dumps(record),
        state=str(paths.state),
        directory=str(paths.directory),
        volatile=config.volatile,
        config=description,
        listener=listener.fileno(),
        group=NULL if group is None else group,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )
    send_kit(report, kit)


def plan(
    instance: Instance, config: ContainerConfig, shared_memory: int | None = None
) -> Preparation:
    """All of a start that changes nothing on the host. Raises RuntimeFault."""
    paths = instance.container(config.id)
    return prepare.prepare(config, paths, instance.seccomp_cache, shared_memory)


def run_exec(
    instance: Instance,
    kit: Kit,
    request: dict[str, Any],
    pidfd: int,
    report: socket.socket,
    child_ends: list[int],
) -> None:
    """Become the process that `request` asks for, in the container whose first process is
    behind `pidfd`. Never returns; raises ContainerStartError or RuntimeFault."""
    wanted = ExecConfig(**_tuples(request))
    config = _read_config(kit.config)
    if wanted.privileged:
        config = config.replace(privileged=True)
    confinement = prepare.confine(config, instance.seccomp_cache)
    exec.run(config, confinement, wanted, pidfd, open_cgroup(*kit.cgroup), report, child_ends)


def _read_config(description: int) -> ContainerConfig:
    return ContainerConfig.from_json(os.pread(description, os.fstat(description).st_size, 0))


def _with_secrets(config: ContainerConfig, secrets: dict[str, str]) -> ContainerConfig:
    if not any(file.secret for file in config.files):
        return config
    complete = (
        dataclasses.replace(file, content=secrets[file.target]) if file.secret else file
        for file in config.files
    )
    return config.replace(files=tuple(complete))


def _share(instance: Instance, config: ContainerConfig) -> tuple[ContainerConfig, int | None]:
    """Replace "container:<id>" by the namespaces that the container has now.

    With an ipc namespace comes the shared memory, as a detached mount. Raises RuntimeFault
    where the other container does not run.
    """
    shared: dict[str, str] = {}
    memory = None
    for kind, wanted in (("pid", config.pid_namespace), ("ipc", config.ipc_namespace)):
        if wanted.startswith("container:"):
            other = wanted.removeprefix("container:")
            fds = _namespaces_of(instance, other, (kind, "mnt"))
            if fds is None:
                raise RuntimeFault(
                    f"share the {kind} namespace of container {other[:12]}: it does not run"
                )
            # The children find it at the same place.
            shared[f"{kind}_namespace"] = f"/proc/self/fd/{fds[0]}"
            if kind == "ipc":
                memory = _memory_in(fds[1])
            os.close(fds[1])
    return config.replace(**shared) if shared else config, memory


def _namespaces_of(instance: Instance, id: str, kinds: tuple[str, ...]) -> list[int] | None:
    """The namespaces of a running container, None where it does not run.

    They are opened and then proven to be its own: a pid alone may be somebody else's by now.
    """
    started = read_start(instance.container(id).state) if is_id(id) else None
    if started is None or started.boot != boot_id():
        return None
    fds: list[int] = []
    try:
        for kind in kinds:
            fds.append(os.open(f"/proc/{started.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
        if process.start_time(started.pid) == started.pid_started:
            return fds
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended meanwhile
    close(fds)
    return None


def _memory_in(mount_namespace: int) -> int | None:
    """A detached mount of the /dev/shm of a container; None where it has none in memory."""
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    with step("mount", "share the memory of the other container"):
        # Mounts can be cloned in their own namespace only.
        namespaces.join(mount_namespace, namespaces.CLONE_NEWNS)
        try:
            return _clone_memory()
        finally:
            namespaces.join(own, namespaces.CLONE_NEWNS)
            os.close(own)


def _clone_memory() -> int | None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    place = None
    try:
        place = files.open_in_root(root, "/dev/shm", os.O_PATH | os.O_DIRECTORY)
        if mounts.filesystem_type(place) != mounts.TMPFS_MAGIC:
            return None
        return mounts.clone_tree(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    finally:
        close(fd for fd in (root, place) if fd is not None)


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
