"""What is left of a container whose directory is gone: processes, a control group, a socket."""

from __future__ import annotations

import contextlib
import shutil

from runtime.cgroups.manager import open_cgroup
from runtime.container import sessions
from runtime.container.paths import Instance
from runtime.errors import InvalidState, RuntimeFault

_PATIENCE = 10.0  # seconds for a monitor to end after its container was killed


def end_remains(instance: Instance, id: str, cgroup_parent: str | None) -> None:
    """Kill what is in the container's control group, and return once its monitor has ended.

    Nothing is left to find them by but names; what is not there is as good. Raises RuntimeFault
    where the group stays.
    """
    paths = instance.container(id)
    group = open_cgroup(*instance.cgroup(id, cgroup_parent))
    watch = None
    with contextlib.suppress(InvalidState):
        watch = sessions.open_watch(str(paths.socket))
    with contextlib.suppress(RuntimeFault, OSError):
        group.freeze(False)
    with contextlib.suppress(RuntimeFault, OSError):
        group.kill()
    if watch is not None:
        with watch:
            watch.settimeout(_PATIENCE)
            sessions.read_watch(watch)
    with contextlib.suppress(FileNotFoundError):
        group.remove()
    shutil.rmtree(paths.run_directory, ignore_errors=True)
    shutil.rmtree(paths.directory, ignore_errors=True)
