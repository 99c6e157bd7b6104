"""What a failed rollout takes back is bounded like what it did."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from orchestrator.engine.executor import Outcome, execute
from orchestrator.engine.local import LocalBackend
from orchestrator.engine.simulated import Behaviour, SimulatedBackend
from orchestrator.engine.store import Store
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy
from orchestrator.planning.reconcile import reconcile
from orchestrator.supervisor.rollouts import RolloutKeeper
from specs.project import Project

REPLICAS = 6


def shop(release: int) -> Project:
    update = {"parallelism": 0, "order": "start-first", "failure_action": "rollback"}
    service: dict[str, Any] = {
        "image": "app",
        "scale": REPLICAS,
        "environment": {"RELEASE": str(release)},
        "healthcheck": {"test": ["CMD", "true"]},
        "deploy": {"update_config": update},
    }
    return Project.from_canonical(
        {
            "version": 1,
            "name": "shop",
            "working_dir": "/srv",
            "config_files": ["/srv/compose.yaml"],
            "services": {"web": service},
        }
    )


def test_no_more_actions_than_asked_for_are_under_way_while_it_goes_back(tmp_path: Path) -> None:
    world = SimulatedBackend(images={"app": "sha256:1"})
    world.behaviours = {"web": Behaviour(health="healthy")}
    bounds: list[int] = []

    async def up(release: int) -> tuple[Plan, Outcome]:
        observed = await world.observe("shop", images=["app"])
        plan = reconcile(shop(release), observed, Policy(), 0.0)
        return plan, await execute(plan, world, lambda event: None)

    async def back(plan: Plan, parallel: int) -> Outcome:
        bounds.append(parallel)
        return await execute(plan, world, lambda event: None, parallel=parallel)

    async def main() -> None:
        await up(1)
        world.behaviours = {"web": Behaviour(health="unhealthy")}
        plan, outcome = await up(2)
        assert not outcome.ok
        with Store(tmp_path) as store:
            backend = SimpleNamespace(host=SimpleNamespace(store=store), observe=world.observe)
            keeper = RolloutKeeper(cast(LocalBackend, backend), back)
            failed = await keeper.judge(plan, keeper.begin(plan), outcome, 2)
        assert set(failed) == {"web"}

    asyncio.run(main())

    assert bounds == [2]
    assert sorted(world.containers) == [f"shop-web-{n + 1}" for n in range(REPLICAS)]
    assert {c.spec["service"]["environment"]["RELEASE"] for c in world.containers.values()} == {"1"}
