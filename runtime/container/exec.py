"""A further process in a running container, from fork to exec."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from runtime.cgroups.manager import Cgroup
from runtime.container import init
from runtime.container.config import ContainerConfig, ExecConfig
from runtime.container.init import Confinement
from runtime.container.mounting import step
from runtime.linux import files, namespaces, process, terminals


def run(
    config: ContainerConfig,
    confinement: Confinement,
    wanted: ExecConfig,
    pidfd: int,
    cgroup: Cgroup,
    report: socket.socket,
    stdio: Sequence[int],
) -> None:
    """Become a process of the container whose first process is behind `pidfd`.

    Never returns: ends in exec, or raises ContainerStartError or RuntimeFault.
    """
    process.prctl(process.PR_SET_DUMPABLE, 0)
    process.die_with_parent()
    cgroup.join()
    init.set_oom_score(config)
    with step("namespace", "enter the container's namespaces"):
        namespaces.join(
            pidfd,
            namespaces.CLONE_NEWNS
            | namespaces.CLONE_NEWUTS
            | namespaces.CLONE_NEWIPC
            | namespaces.CLONE_NEWNET
            | namespaces.CLONE_NEWCGROUP
            | namespaces.CLONE_NEWPID,
        )
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    init.leave_keyring()
    user = config.user if wanted.user is None else wanted.user
    who = init.resolve_identity(root, user, config.additional_groups)
    terminal = _open_terminal(root, report, wanted) if wanted.tty else None
    init.take_stdio(terminal, stdio)
    init.close_all_but(report)
    init.enter_pid_namespace()
    init.lead_session(tty=wanted.tty)
    for limit in config.ulimits:
        init.set_ulimit(limit)
    init.confine(confinement, who)
    environment = init.complete_environment((*config.env, *wanted.env), who, tty=wanted.tty)
    init.enter_directory(config.cwd if wanted.cwd is None else wanted.cwd)
    init.stay_with_parent()
    init.execute(wanted.argv, environment)


def _open_terminal(root: int, report: socket.socket, wanted: ExecConfig) -> int:
    """A terminal of the container's own devpts; what lies there is verified before use."""
    with step("terminal", "open a terminal"):
        master = files.open_in_root(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        slave = terminals.open_peer(master)
        terminals.resize(master, rows=wanted.rows, columns=wanted.columns)
        socket.send_fds(report, [b"terminal"], [master])
        os.close(master)
    return slave
