"""What a container has of others: their namespaces, their network, their volumes."""

from __future__ import annotations

import contextlib
import dataclasses

from orchestrator.engine.errors import EngineError
from orchestrator.engine.filesystem import volume_source
from orchestrator.engine.host import Host
from orchestrator.engine.records import ContainerRecord
from orchestrator.engine.sandboxes import network_files, own_sandbox
from runtime.container.config import ImageMount, Mount
from runtime.errors import NotFound


def namespaces(host: Host, record: ContainerRecord) -> dict[str, str]:
    """The namespaces that the container joins, by kind: a path, or `container:<id>` where
    the runtime finds the other one's at each start."""
    service = record.spec["service"]
    found: dict[str, str] = {}
    if own_sandbox(service):
        found["network"] = str(host.networks.open_sandbox(record.id))
    for attribute, kind in (("network_mode", "network"), ("ipc", "ipc"), ("pid", "pid")):
        target, _, name = str(service.get(attribute) or "").partition(":")
        if target in ("service", "container") and name:
            other = _shared_with(host, record, target, name)
            if kind != "network":
                found[kind] = f"container:{other.id}"
                continue
            owner = network_owner(host, other)
            if own_sandbox(owner.spec["service"]):
                found[kind] = str(host.networks.open_sandbox(owner.id))
    return found


def network_owner(host: Host, record: ContainerRecord) -> ContainerRecord:
    """The container whose network this one uses, itself where it is its own or the host's."""
    target, _, name = str(record.spec["service"].get("network_mode") or "").partition(":")
    if target in ("service", "container") and name:
        return network_owner(host, _shared_with(host, record, target, name))
    return record


def renew_hosts(host: Host, record: ContainerRecord) -> None:
    """Write the addresses of `record`, which owns its sandbox, into its /etc/hosts and those
    of the containers that share its network. Blocking."""
    if not own_sandbox(record.spec["service"]):
        return
    hosts = network_files(host, record, record.endpoints).hosts
    for other in host.store.containers(record.project):
        if other.id == record.id or _shares_network_with(host, other, record):
            with contextlib.suppress(NotFound):
                host.containers.rewrite_file(other.id, "/etc/hosts", hosts)


def _shares_network_with(host: Host, record: ContainerRecord, owner: ContainerRecord) -> bool:
    if not str(record.spec["service"].get("network_mode") or "").startswith(
        ("service:", "container:")
    ):
        return False
    try:
        return network_owner(host, record).id == owner.id
    except EngineError:
        return False  # what it shared with is gone


def borrowed(host: Host, record: ContainerRecord) -> tuple[Mount | ImageMount, ...]:
    """The volumes, binds and images of the containers that `volumes_from` names."""
    found: dict[str, Mount | ImageMount] = {}
    for source in record.spec["service"].get("volumes_from") or ():
        target, name, mode = volume_source(str(source))
        other = _shared_with(host, record, target, name)
        config = host.containers.config(other.id)
        found |= {image.target: image for image in config.images}
        for mount in config.mounts:
            read_only = mount.read_only or mode == "ro"
            found[mount.target] = dataclasses.replace(mount, read_only=read_only, seed=False)
    return tuple(found.values())


def _shared_with(host: Host, record: ContainerRecord, target: str, name: str) -> ContainerRecord:
    if target == "container":
        return host.record(name)
    for other in host.store.containers(record.project):
        if other.service == name and not other.oneoff and other.role == "current":
            return other
    raise EngineError(f"container {record.name} needs a container of service {name}")


def follow_namespaces(host: Host, record: ContainerRecord) -> None:
    """Namespaces of another container's process are others after that one's restart."""
    service = record.spec["service"]
    shared = [str(service.get(key) or "") for key in ("network_mode", "ipc", "pid")]
    if not any(text.startswith(("service:", "container:")) for text in shared):
        return
    found = namespaces(host, record)
    config = host.containers.config(record.id)
    current = config.replace(
        netns=found.get("network", config.netns),
        ipc_namespace=found.get("ipc", config.ipc_namespace),
        pid_namespace=found.get("pid", config.pid_namespace),
    )
    if current != config:
        host.containers.update(record.id, current)
