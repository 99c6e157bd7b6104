"""What makes the controller look: the bus's events; exits and timers are its own."""

from __future__ import annotations

from orchestrator.engine.events import ContainerEvent, EventBus, ResourceEvent
from orchestrator.supervisor.controller import NAMES, Controller


async def follow_events(bus: EventBus, controller: Controller) -> None:
    """Wake the controller for every container that changed; runs until cancelled."""
    with bus.subscribe() as events:
        async for event in events:
            if isinstance(event, ContainerEvent):
                if event.action in ("create", "stop"):
                    # What comes next, a start or the end, is mostly on its way.
                    controller.wake_later(event.id)
                elif event.action not in ("die", "health_status", "kill"):
                    controller.wake(event.id)
                if event.action in ("create", "update", "destroy"):
                    controller.queue.add_gently(f"project {event.project}")
            elif isinstance(event, ResourceEvent) and event.kind == "network":
                controller.queue.add_gently(NAMES)
                controller.queue.add_gently(f"project {event.project}")
