"""A recreated replica has its predecessor's anonymous volumes, wherever a run was cut short."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.engine.executor import execute
from orchestrator.engine.simulated import SimulatedBackend, SimulatedFault
from orchestrator.planning.actions import AnyAction
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy
from orchestrator.planning.reconcile import reconcile
from orchestrator.planning.undo import undo
from specs.project import Project

STEPS = 20


def shop(release: int) -> Project:
    own = {"type": "volume", "target": "/own"}
    service = {"image": "app", "environment": {"RELEASE": str(release)}, "volumes": [own]}
    services: dict[str, Any] = {
        "db": service,
        "web": {**service, "scale": 2, "depends_on": {"db": {"condition": "service_started"}}},
    }
    return Project.from_canonical(
        {
            "version": 1,
            "name": "shop",
            "working_dir": "/srv",
            "config_files": ["/srv/compose.yaml"],
            "services": services,
        }
    )


class World:
    def __init__(self) -> None:
        self.backend = SimulatedBackend(images={"app": "sha256:1"})

    def up(self, release: int, **policy: Any) -> Plan:
        """One run of `up`, with what a failed one takes back."""

        async def main() -> Plan:
            project = shop(release)
            plan = reconcile(project, await self._observe(), Policy(**policy), 0.0)
            outcome = await execute(plan, self.backend, lambda event: None, parallel=1)
            self.backend.before = self.backend.after = None
            if not outcome.ok and self.alive:
                reverse = undo(plan, outcome.statuses, await self._observe(), 0.0)
                assert (await execute(reverse, self.backend, lambda event: None)).ok
            return plan

        return asyncio.run(main())

    alive = True

    async def _observe(self) -> Any:
        return await self.backend.observe("shop", images=["app"])

    def volumes(self) -> dict[str, str]:
        return {name: c.anonymous["/own"] for name, c in self.backend.containers.items()}

    def cut(self, step: int, *, after: bool, alive: bool) -> None:
        """Let nothing succeed from this step of the next run on; one that is not `alive` takes
        nothing back."""
        count = -1

        def fault(action: AnyAction) -> Exception | None:
            nonlocal count
            count += 1
            return SimulatedFault("cut") if count >= step else None

        self.alive = alive
        self.backend.before, self.backend.after = (None, fault) if after else (fault, None)


@pytest.mark.parametrize("alive", [True, False], ids=["failed", "killed"])
@pytest.mark.parametrize("after", [True, False])
def test_volumes_outlive_a_run_that_ends_at_any_step(after: bool, alive: bool) -> None:
    for step in range(STEPS):
        world = World()
        world.up(1)
        before = world.volumes()
        assert len(set(before.values())) == 3
        world.cut(step, after=after, alive=alive)
        plan = world.up(2)
        assert len(plan.steps) < STEPS
        # The next run fails, too, at the first start.
        world.cut(3, after=False, alive=True)
        world.up(3)
        world.up(3)
        assert world.volumes() == before, step
        assert world.backend.inheritance == {}, step
        assert world.up(3).empty


def test_who_asks_for_new_volumes_has_new_ones_after_a_crash_too() -> None:
    world = World()
    world.up(1)
    before = world.volumes()
    for step in range(STEPS):
        world.cut(step, after=True, alive=False)
        world.up(2 + step)
    world.up(100, renew_volumes=True)
    assert not set(before.values()) & set(world.volumes().values())
    assert world.backend.inheritance == {}


def test_a_replica_that_is_not_wanted_any_more_leaves_nothing_to_later_ones() -> None:
    world = World()
    world.up(1)
    before = world.volumes()
    world.up(1, scale={"web": 1})
    world.up(1)
    assert world.volumes()["shop-web-1"] == before["shop-web-1"]
    assert world.volumes()["shop-web-2"] not in before.values()
