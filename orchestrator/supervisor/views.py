"""What the API shows of containers, projects, images, volumes and networks, as plain JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from orchestrator.engine.local import LocalBackend
from orchestrator.engine.observe import container_status, health_status
from orchestrator.engine.records import ContainerRecord


def time_text(seconds: float | None) -> str | None:
    """RFC 3339 with microseconds, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def containers(
    backend: LocalBackend, records: Iterable[ContainerRecord], *, all: bool
) -> list[dict[str, Any]]:
    """The containers, those that have ended only with `all`. Blocking."""
    listed = list(records)
    statuses = backend.statuses(listed)
    shown = []
    for record in listed:
        state = _state(record, statuses.get(record.id, "created"))
        if all or state in ("running", "paused", "restarting"):
            shown.append(_container(backend, record, state))
    return shown


def _state(record: ContainerRecord, status: str) -> str:
    """The state that is shown: a container runs until its end is on record with its exit code,
    so that nobody sees the one without the other."""
    unsettled = record.started_at is not None and record.finished_at is None
    if status == "exited" and unsettled and record.restart_at is None:
        return "running"
    return container_status(record, status)


def _container(backend: LocalBackend, record: ContainerRecord, state: str) -> dict[str, Any]:
    health = health_status(record, state)  # type: ignore[arg-type]  # container_status's own words
    return {
        "id": record.id,
        "name": record.name,
        "project": record.project,
        "service": record.service,
        "number": record.number,
        "oneoff": record.oneoff,
        "image": record.image,
        "image_id": record.image_id,
        "mounted_images": list(record.mounted_images),
        "command": list(record.process.command),
        "state": state,
        "health": health if health != "none" else "",
        "exit_code": record.exit_code,
        "error": record.error,
        "created_at": time_text(record.created_at),
        "started_at": time_text(record.started_at),
        "finished_at": time_text(record.finished_at),
        "ports": [
            {
                "host_ip": port.host_ip,
                "host_port": port.host_port,
                "container_port": port.container_port,
                "protocol": port.protocol,
            }
            for port in (record.ports if state in ("running", "paused") else ())
        ],
        "networks": {endpoint.network: endpoint.address for endpoint in record.endpoints},
        "labels": record.labels,
        "log_path": str(backend.host.containers.log_path(record.id)),
        "monitor_socket": str(backend.host.containers.monitor_socket(record.id)),
        "restarts": record.restarts,
        "tty": bool(record.spec["service"].get("tty")),
        "stdin": bool(record.spec["service"].get("stdin_open")),
        "volumes": sorted({*record.spec["volumes"].values(), *record.volumes.values()}),
        "attach": record.spec["service"].get("attach") is not False,
        "depends_on": sorted(record.spec["service"].get("depends_on") or {}),
    }


def projects(backend: LocalBackend) -> list[dict[str, Any]]:
    """Every project that has containers, with how many are in which state. Blocking."""
    records = backend.host.store.containers()
    statuses = backend.statuses(records)
    states: dict[str, Counter[str]] = {}
    files: dict[str, list[str]] = {}
    for record in records:
        state = _state(record, statuses.get(record.id, "created"))
        states.setdefault(record.project, Counter())[state] += 1
        known = files.setdefault(record.project, [])
        known += [path for path in record.source if path not in known]
    applied = {record.name: record for record in backend.host.store.projects()}
    return [
        {
            "name": name,
            "status": ", ".join(f"{state}({n})" for state, n in sorted(counts.items())),
            "config_files": files[name],
            "working_dir": applied[name].working_dir if name in applied else "",
        }
        for name, counts in sorted(states.items())
    ]


def images(backend: LocalBackend) -> list[dict[str, Any]]:
    return [_image(found) for found in backend.host.images.list()]


def image(backend: LocalBackend, reference: str) -> dict[str, Any]:
    """One image with its config and history; raises ImageNotFound. Blocking."""
    found = backend.host.images.resolve(reference)
    return {
        **_image(found),
        "digest": found.digest,
        "config": json.loads(found.config.to_bytes()),
        "history": [
            {"created": line.created, "created_by": line.created_by, "size": line.size}
            for line in backend.host.images.history(found)
        ],
    }


def _image(found: Any) -> dict[str, Any]:
    return {
        "id": found.id,
        "references": list(found.references),
        "size": found.size,
        "created": found.created,
    }


def volumes(backend: LocalBackend, project: str | None) -> list[dict[str, Any]]:
    return [
        {
            "name": volume.name,
            "driver": volume.driver,
            "mountpoint": volume.mountpoint,
            "labels": dict(volume.labels),
            "created_at": time_text(volume.created_at / 1e9),
        }
        for volume in backend.host.volumes.list()
        if project is None or volume.labels.get("com.docker.compose.project") == project
    ]


def networks(backend: LocalBackend, project: str | None) -> list[dict[str, Any]]:
    return [
        {
            "name": network.name,
            "id": network.id,
            "driver": "bridge",
            "subnet": network.subnet,
            "gateway": network.gateway,
            "interface": network.interface,
            "internal": network.internal,
            "labels": dict(network.labels),
        }
        for network in backend.host.networks.list()
        if project is None or network.labels.get("com.docker.compose.project") == project
    ]
