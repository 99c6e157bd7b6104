"""Our events in Docker's words: one of ours may be several of Docker's. Pure.

Docker's types are container, network, volume and image (docker system events); step, build,
drift and plan are ours and keep their form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.engine.events import ContainerEvent, Event, ResourceEvent

Endpoints = Callable[[str], Mapping[str, str]]
"""A container's networks by its id: name → address; empty for one that is not known."""

_RESOURCE_ACTIONS = {
    ("image", "remove"): "delete",
    ("network", "remove"): "destroy",
    ("volume", "remove"): "destroy",
}


def told(event: Event, endpoints: Endpoints) -> Iterator[dict[str, Any]]:
    """The events as they are shown and kept."""
    if isinstance(event, ResourceEvent):
        action = _RESOURCE_ACTIONS.get((event.kind, event.action), event.action)
        yield {
            "type": event.kind,
            "action": action,
            "project": event.project,
            "name": event.name,
            "at": event.at,
            "attributes": {"name": event.name},
        }
    elif isinstance(event, ContainerEvent):
        yield from _container(event, endpoints)
    else:
        yield event.to_json()


def _container(event: ContainerEvent, endpoints: Endpoints) -> Iterator[dict[str, Any]]:
    shown = event.to_json()
    match event.action:
        case "start":
            yield from _network(event, "connect", endpoints)
            yield shown
        case "die":
            if event.attributes.get("oomKilled"):
                yield {**shown, "action": "oom", "attributes": {}}
            yield shown
            yield from _network(event, "disconnect", endpoints)
        case "health_status":
            yield {**shown, "action": f"health_status: {event.attributes.get('status', '')}"}
        case _:
            yield shown


def _network(event: ContainerEvent, action: str, endpoints: Endpoints) -> Iterator[dict[str, Any]]:
    for network, address in sorted(endpoints(event.id).items()):
        yield {
            "type": "network",
            "action": action,
            "project": event.project,
            "name": network,
            "service": event.service,
            "at": event.at,
            "attributes": {"container": event.id, "name": network, "address": address},
        }
