"""Small stacks, and worlds that hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from orchestrator.engine.executor import Outcome, execute
from orchestrator.engine.simulated import Behaviour, SimulatedBackend
from orchestrator.planning.images import referenced
from orchestrator.planning.observed import Observed
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy, Removal
from orchestrator.planning.reconcile import reconcile
from orchestrator.planning.teardown import tear_down
from specs.project import Project

NOW = 1_000_000.0


class World:
    """A simulated host on which stacks go up and down."""

    def __init__(self, images: Mapping[str, str], behaviours: Mapping[str, Behaviour]) -> None:
        self.backend = SimulatedBackend(images=images, behaviours=behaviours)

    def observe(self, project: Project, images: Iterable[str] = ()) -> Observed:
        return asyncio.run(
            self.backend.observe(
                project.name,
                images={*referenced(project), *images},
                networks=[network.name for network in project.networks.values()],
                volumes=[volume.name for volume in project.volumes.values()],
            )
        )

    def plan(self, project: Project, **policy: Any) -> Plan:
        wish = Policy(**policy)
        pinned = [pin.image for pin in wish.pins.values()]
        return reconcile(project, self.observe(project, pinned), wish, NOW)

    def up(self, project: Project, **policy: Any) -> Plan:
        plan = self.plan(project, **policy)
        outcome = self.execute(plan)
        assert outcome.ok, outcome
        return plan

    def execute(self, plan: Plan) -> Outcome:
        return asyncio.run(execute(plan, self.backend, lambda event: None))

    def down(self, project: Project, **removal: Any) -> Plan:
        return tear_down(project.name, project, self.observe(project), Removal(**removal), NOW)


@pytest.fixture
def stack() -> Callable[..., Project]:
    """Make a project of canonical services; each is on the default network unless it says
    otherwise, and runs the image `app` unless it names or builds one."""

    def make(services: dict[str, dict[str, Any]], **resources: Any) -> Project:
        for service in services.values():
            if "build" not in service:
                service.setdefault("image", "app")
            if "network_mode" not in service:
                service.setdefault("networks", {"default": {}})
        resources.setdefault("networks", {"default": {"name": "shop_default"}})
        return Project.from_canonical(
            {
                "version": 1,
                "name": "shop",
                "working_dir": "/srv/shop",
                "config_files": ["/srv/shop/compose.yaml"],
                "services": services,
                **resources,
            }
        )

    return make


@pytest.fixture
def world() -> Callable[..., World]:
    def make(*, images: Mapping[str, str] | None = None, **behaviours: Behaviour) -> World:
        return World(images or {"app": "sha256:a1"}, behaviours)

    return make
