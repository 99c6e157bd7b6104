"""The container's first process, from fork to exec.

Runs in a child of the keeper that is already process 1 of the new pid namespace. It only
makes system calls: nothing is imported, nothing of the container is run or loaded before the
confinement is complete. Each failure is reported as a ContainerStartError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import socket
import stat
import termios
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.cgroups.manager import Cgroup
from runtime.container import gate, identity, reaper
from runtime.container.children import NULL, REPORT
from runtime.container.config import ContainerConfig, Ulimit
from runtime.container.identity import Identity
from runtime.container.mounting import Root, make_filesystems, step, take_images, take_sources
from runtime.container.rootfs import Bind, Operation, Overlay
from runtime.errors import ContainerStartError, RuntimeFault
from runtime.linux import capabilities, files, mounts, namespaces, process, seccomp, terminals

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_DEFAULT_SYSCTLS = {
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv4.ip_unprivileged_port_start": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a process of the container is left with."""

    capabilities: tuple[int, ...]
    last_capability: int
    no_new_privileges: bool
    seccomp: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """All that can be worked out before the fork.

    `shared_memory` is a detached mount, of the container whose ipc namespace is shared.
    `place` is an empty directory on which the root is mounted; `secrets` are files that exist
    in memory only, (target, content, mode, uid, gid).
    """

    config: ContainerConfig
    overlay: Overlay
    operations: tuple[Operation, ...]
    shared_memory: int | None
    place: str
    secrets_place: str
    confinement: Confinement


def run(
    preparation: Preparation, cgroup: Cgroup, report: socket.socket, stdio: Sequence[int]
) -> None:
    """Become the container. `stdio` are the descriptors for 0, 1, 2, empty with a terminal.

    Never returns: ends in exec, or raises ContainerStartError or RuntimeFault.
    """
    config = preparation.config
    process.prctl(process.PR_SET_DUMPABLE, 0)
    process.die_with_parent()
    cgroup.join()
    set_oom_score(config)
    _enter_namespaces(config)
    root = _assemble(preparation)
    terminal = _open_terminal(root, report, config.terminal_size) if config.tty else None
    _set_sysctls(config)
    who = resolve_identity(root.fd, config.user, config.additional_groups)
    with step("directory", "create the working directory", config.cwd):
        os.close(files.make_directories_in_root(root.fd, config.cwd))
    if config.read_only:
        root.make_read_only()
    with step("root", "change into the root file system"):
        mounts.pivot_into(root.fd)
    take_stdio(terminal, stdio)
    close_all_but(report)
    if config.pid_namespace not in ("private", "host"):
        enter_pid_namespace()
    lead_session(tty=config.tty)
    for limit in config.ulimits:
        set_ulimit(limit)
    confine(preparation.confinement, who)
    environment = complete_environment(config.env, who, tty=config.tty)
    enter_directory(config.cwd)
    stay_with_parent()
    if config.init and config.pid_namespace == "private":
        reaper.run(lambda: execute(config.argv, environment), tty=config.tty)
    execute(config.argv, environment)


def _enter_namespaces(config: ContainerConfig) -> None:
    with step("namespace", "enter the namespaces"):
        if config.netns is not None:
            namespaces.join_path(config.netns, namespaces.CLONE_NEWNET)
        flags = namespaces.CLONE_NEWNS
        if config.pid_namespace not in ("private", "host"):
            # For the next child; a private one was made before this process was born.
            namespaces.join_path(config.pid_namespace, namespaces.CLONE_NEWPID)
        for kind, flag in (
            (config.ipc_namespace, namespaces.CLONE_NEWIPC),
            (config.uts_namespace, namespaces.CLONE_NEWUTS),
            (config.cgroup_namespace, namespaces.CLONE_NEWCGROUP),
        ):
            if kind == "private":
                flags |= flag
            elif kind != "host":
                namespaces.join_path(kind, flag)
        namespaces.unshare(flags)
    leave_keyring()
    with step("namespace", "set the host name to", config.hostname):
        if config.uts_namespace == "private":
            if config.hostname:
                namespaces.set_hostname(config.hostname)
            if config.domainname:
                namespaces.set_domainname(config.domainname)


def leave_keyring() -> None:
    """Let go of the host's session keyring; a kernel without keyrings has none that could leak."""
    with contextlib.suppress(OSError):
        process.new_session_keyring()


def _assemble(preparation: Preparation) -> Root:
    sources = take_sources(preparation.operations)
    with step("root", "cut the mounts off from the host's"):
        # Slaves: what the host unmounts goes here too while the root is being built.
        mounts.change_propagation("/", mounts.MS_SLAVE | mounts.MS_REC)
    filesystems = make_filesystems(preparation.operations)
    if preparation.config.gate is not None:
        gate.pass_through(preparation.config.gate)
    images = take_images(preparation.operations, preparation.place)
    root = Root(preparation.overlay, preparation.place, preparation.shared_memory)
    root.add_sources(sources)
    root.add_sources(filesystems)
    root.add_sources(images)
    root.seed_volumes(preparation.config)
    secrets = _secrets(preparation)
    root.add_sources(take_sources(secrets))
    for operation in (*preparation.operations, *secrets):
        root.run(operation)
    return root


def _secrets(preparation: Preparation) -> tuple[Bind, ...]:
    """Write the files that must never lie on a disk into memory, each with its own owner."""
    secret = [file for file in preparation.config.files if file.secret]
    if not secret:
        return ()
    binds = []
    with step("secret", "keep secrets in memory"):
        tree = mounts.new_filesystem(
            "tmpfs",
            (("mode", "711"),),
            attributes=mounts.MOUNT_ATTR_NOSUID
            | mounts.MOUNT_ATTR_NODEV
            | mounts.MOUNT_ATTR_NOEXEC,
            source="secrets",
        )
        place = os.open(preparation.secrets_place, os.O_PATH | os.O_CLOEXEC)
        mounts.attach(tree, place)
        os.close(place)
        for number, file in enumerate(secret):
            name = str(number)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=tree)
            os.write(fd, file.content.encode())
            os.fchown(fd, file.uid, file.gid)
            os.fchmod(fd, file.mode)
            os.close(fd)
            source = f"{preparation.secrets_place}/{name}"
            binds.append(Bind(source=source, target=file.target, read_only=True, recursive=False))
        os.close(tree)
    return tuple(binds)


def _open_terminal(root: Root, report: socket.socket, size: tuple[int, int] | None) -> int:
    """Make a terminal in the container's own devpts and send its other end to the keeper."""
    with step("terminal", "open a terminal"):
        if root.devpts is None:
            raise OSError(errno.ENOENT, "no devpts")
        master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=root.devpts)
        slave = terminals.open_peer(master)
        if size is not None:
            terminals.resize(master, rows=size[0], columns=size[1])
        console = mounts.clone_tree(slave)
        root.attach_at(console, "/dev/console", directory=False)
        os.close(console)
        socket.send_fds(report, [b"terminal"], [master])
        os.close(master)
    return slave


def _set_sysctls(config: ContainerConfig) -> None:
    wanted = dict(config.sysctls)
    if config.netns is not None:
        wanted = {**_DEFAULT_SYSCTLS, **wanted}
    if not wanted:
        return
    # A proc of our own: the container's has a read-only cover over sys by now.
    with step("sysctl", "mount proc"):
        proc = mounts.new_filesystem("proc")
    for name, value in wanted.items():
        with step("sysctl", "set sysctl", name):
            fd = files.openat2(
                proc,
                "sys/" + name.replace(".", "/"),
                os.O_WRONLY,
                resolve=files.RESOLVE_BENEATH | files.RESOLVE_NO_SYMLINKS | files.RESOLVE_NO_XDEV,
            )
            if mounts.filesystem_type(fd) != mounts.PROC_SUPER_MAGIC:
                raise OSError(errno.EINVAL, "not in proc", name)
            os.write(fd, value.encode())
            os.close(fd)
    os.close(proc)


def resolve_identity(root: int, user: str, additional: tuple[str, ...]) -> Identity:
    """Who `user` is by the files below the directory `root`."""
    if user in ("", "0", "root") and not additional:
        # root needs no look-up but for the home directory.
        with contextlib.suppress(OSError):
            return identity.resolve("0", files.read_in_root(root, "/etc/passwd"), None)
    with step("user", "read the users of the image"):
        passwd = files.read_in_root(root, "/etc/passwd")
        group = files.read_in_root(root, "/etc/group")
    return identity.resolve(user, passwd, group, additional)


def take_stdio(terminal: int | None, stdio: Sequence[int]) -> None:
    """Make `terminal`, or the descriptors `stdio`, 0, 1 and 2."""
    if terminal is not None:
        stdio = (terminal, terminal, terminal)
    for number, fd in enumerate(stdio):
        os.dup2(_null_device() if fd == NULL else fd, number, inheritable=True)


def enter_pid_namespace() -> None:
    """Go on as a sibling that is born in the pid namespace that was joined; this process ends.

    Only now can other processes there see it: its root is the container's, and no descriptor of
    the host's is left, which a container with CAP_SYS_PTRACE could reach through /proc.
    """
    pid = process.fork(sibling=True)
    if pid:
        with socket.socket(fileno=REPORT) as report:
            report.send(f"pid {pid}".encode())
        os._exit(0)


def lead_session(*, tty: bool) -> None:
    """Lead a new session, with descriptor 0 as its terminal where it is one."""
    os.setsid()
    if tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _null_device() -> int:
    with step("device", "open", "/dev/null"):
        fd = os.open("/dev/null", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        if os.fstat(fd).st_rdev != os.makedev(1, 3):
            raise OSError(errno.ENODEV, "not the null device")
        os.set_blocking(fd, True)
    return fd


def set_oom_score(config: ContainerConfig) -> None:
    """Through the host's /proc, which no image or volume can have replaced (CVE-2025-52881)."""
    with step("limit", "set the OOM score"):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(config.oom_score_adj or 0).encode())
        finally:
            os.close(fd)


def set_ulimit(limit: Ulimit) -> None:
    number = getattr(resource, f"RLIMIT_{limit.name.upper()}", None)
    if number is None:
        raise RuntimeFault(f"unknown ulimit {limit.name}", hint="names are those of getrlimit(2)")
    with step("limit", f"set ulimit {limit.name}"):
        try:
            resource.setrlimit(number, (limit.soft, limit.hard))
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from error


def confine(confinement: Confinement, who: Identity) -> None:
    """Give up all that the container must not have; the order is the kernel's own demand.

    The filter needs CAP_SYS_ADMIN (or no_new_privs) to be loaded, so it comes before the
    capabilities go; the bounding set needs CAP_SETPCAP, so it comes before both.
    """
    with step("confine", "give up capabilities"):
        capabilities.limit_bounding_set(confinement.capabilities, confinement.last_capability)
    if confinement.no_new_privileges:
        with step("confine", "give up new privileges"):
            seccomp.no_new_privileges()
    _own_stdio(who)
    if confinement.seccomp is not None:
        with step("confine", "load the system call filter"):
            seccomp.load(confinement.seccomp)
    with step("user", f"become user {who.uid}:{who.gid}"):
        os.setgroups(who.groups)
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
    with step("confine", "give up capabilities"):
        held = confinement.capabilities if who.uid == 0 else ()
        capabilities.set_capabilities(held)


def stay_with_parent(report: int = REPORT) -> None:
    """Die with the keeper, or at once where it has died already.

    Asked for again, as a change of user clears it (prctl(2)). The other end of the report is
    the keeper's alone, so its being closed tells that the keeper has gone.
    """
    process.die_with_parent()
    poll = select.poll()
    poll.register(report, 0)
    if poll.poll(0):
        os._exit(125)


def _own_stdio(who: Identity) -> None:
    """Let the user open /dev/stdout and its kin again by name, as many images do."""
    if who.uid == 0:
        return
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        if stat.S_ISFIFO(status.st_mode) or (stat.S_ISCHR(status.st_mode) and os.isatty(fd)):
            os.fchown(fd, who.uid, -1)


def complete_environment(given: Sequence[str], who: Identity, *, tty: bool) -> dict[bytes, bytes]:
    """The environment with the variables that Docker always sets; later entries win."""
    environment: dict[bytes, bytes] = {b"PATH": PATH.encode(), b"HOME": who.home.encode()}
    if tty:
        environment[b"TERM"] = b"xterm"
    for entry in given:
        name, _, value = entry.partition("=")
        if name:
            environment[os.fsencode(name)] = os.fsencode(value)
    return environment


def enter_directory(path: str) -> None:
    """Change into the working directory, which must lie inside the root."""
    with step("directory", "change into the working directory", path):
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # No magic links: through a leaked descriptor it would lie outside (CVE-2024-21626).
        directory = files.open_in_root(root, path or "/", os.O_PATH | os.O_DIRECTORY)
        os.fchdir(directory)
        os.close(directory)
        os.close(root)
        if not os.getcwd().startswith("/"):
            raise OSError(errno.EACCES, "outside of the root", path)


def close_all_but(report: socket.socket) -> None:
    """Leave 0, 1, 2, and `report` as 3, which closes itself at exec."""
    os.dup2(report.detach(), REPORT, inheritable=False)
    process.close_from(REPORT + 1)


def execute(argv: Sequence[str], environment: dict[bytes, bytes]) -> None:
    """exec `argv`, found along PATH as a shell would; never returns.

    Raises ContainerStartError with 127 where there is no such command, 126 where it cannot be
    executed.
    """
    if not argv:
        raise ContainerStartError(
            "no command was given", step="exec", exit_code=127, hint="neither has the image one"
        )
    command = argv[0]
    # What Python, or who started the daemon, ignores or blocks must not be inherited.
    process.reset_signals()
    if "/" in command:
        candidates = [command]
    else:
        path = os.fsdecode(environment.get(b"PATH", PATH.encode()))
        candidates = [f"{directory or '.'}/{command}" for directory in path.split(":")]
    failure: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, list(argv), environment)
        except ValueError as error:
            raise ContainerStartError(
                f"execute {command}: {error}", step="exec", exit_code=126
            ) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            if os.path.exists(candidate):
                failure = error  # the interpreter named in it is what is missing
        except OSError as error:
            if not os.path.isdir(candidate) or "/" in command:
                failure = error
    raise _exec_failure(command, failure)


def _exec_failure(command: str, failure: OSError | None) -> ContainerStartError:
    if failure is None:
        return ContainerStartError(
            f"{command}: executable file not found in the image"
            + ("" if "/" in command else " along PATH"),
            step="exec",
            exit_code=127,
            hint="check the command, or install it in the image",
        )
    hints = {
        errno.ENOEXEC: "the file is not a program for this machine, or a script without #!",
        errno.EACCES: "the file is not executable",
        errno.ENOENT: "the interpreter or loader that it names is missing in the image",
    }
    number = failure.errno or 0
    return ContainerStartError(
        f"execute {command}",
        step="exec",
        errno=number,
        exit_code=127 if number == errno.ENOENT else 126,
        hint=hints.get(number),
    )
