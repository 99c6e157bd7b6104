"""How the projects of a git source fare now, whatever they did when they were applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from orchestrator.engine.observe import observed_containers
from orchestrator.planning.observed import Observed
from orchestrator.supervisor.status import Health, health_by_service

if TYPE_CHECKING:
    from orchestrator.engine.gitops_table import Belonging
    from orchestrator.engine.local import LocalBackend

Healths = Mapping[str, Mapping[str, Health]]
"""By project and service."""


def present_health(backend: LocalBackend, inventory: Iterable[Belonging]) -> Healths:
    """The health of each service that a source has put here. Blocking."""
    found = {}
    for belonging in inventory:
        records = backend.host.store.containers(belonging.project)
        containers = observed_containers(records, backend.statuses(records))
        observed = Observed(containers=containers)
        found[belonging.project] = health_by_service(belonging.spec["services"], observed)
    return found
