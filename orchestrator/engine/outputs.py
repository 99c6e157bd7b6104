"""The last of what a container has written, for an error that tells of its failure."""

from __future__ import annotations

from orchestrator.engine.host import Host
from runtime.container.log_reader import read_log


def last_lines(host: Host, name: str, count: int) -> list[str]:
    """The last lines of the container of this name, none where there is no such container.
    Blocking."""
    record = host.store.container_named(name)
    if record is None:
        return []
    return [e.text.rstrip("\n") for e in read_log(host.containers.log_path(record.id), tail=count)]
