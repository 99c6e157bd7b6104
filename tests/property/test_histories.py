"""Random histories of a simulated host: changes, exits, failures, rollouts, and crashes between
any two steps. However it went, it ends as wanted, with nothing left to do.

`BAYPLAN_HISTORIES` says how many (100 by default). A history is told by its number alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
from collections import Counter
from typing import Any

import pytest

from orchestrator.engine.errors import HookFailed, RolloutFailed, WaitFailed
from orchestrator.engine.executor import Outcome, execute
from orchestrator.engine.simulated import Behaviour, SimulatedBackend, SimulatedFault
from orchestrator.planning.actions import AnyAction, CreateContainer, RemoveContainer
from orchestrator.planning.images import referenced
from orchestrator.planning.observed import HealthStatus, Observed, ObservedContainer
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy, Removal
from orchestrator.planning.reconcile import reconcile
from orchestrator.planning.revert import revert
from orchestrator.planning.rollout import rollback_strategy
from orchestrator.planning.teardown import tear_down
from specs.project import Project

HISTORIES = int(os.environ.get("BAYPLAN_HISTORIES", "100"))
SHARES = 20
NAMES = ("api", "db", "job", "mail", "web")
ONE_SHOT = "job"
SCRATCH = "/scratch"
EXPECTED = (SimulatedFault, WaitFailed, RolloutFailed, HookFailed)


class Estates(SimulatedBackend):
    """Sees to it that what takes a replica's place has its anonymous volume."""

    def __init__(self, *, images: dict[str, str]) -> None:
        super().__init__(images=images)
        self._left: dict[tuple[str, int], str] = {}

    async def create_container(self, action: CreateContainer) -> None:
        wanted = self._left.get((action.service, action.number))
        for there in self.containers.values():
            same = (there.service, there.number) == (action.service, action.number)
            if self._is_replica(there) and same:
                wanted = there.anonymous.get(SCRATCH)
        try:
            await super().create_container(action)
        finally:
            made = self.containers.get(action.name)
            if made is not None and not made.oneoff:
                volume = made.anonymous.get(SCRATCH)
                assert None in (wanted, volume) or volume == wanted, f"{made.name} lost its volume"
                if made.role == "current":
                    self._left.pop((action.service, action.number), None)

    async def remove_container(self, action: RemoveContainer) -> None:
        gone = self.containers.get(action.name)
        await super().remove_container(action)
        if gone is not None and self._is_replica(gone):
            volume = gone.anonymous.get(SCRATCH)
            if volume is not None and not action.release:
                self._left[gone.service, gone.number] = volume
            else:
                self._left.pop((gone.service, gone.number), None)

    def _is_replica(self, container: ObservedContainer) -> bool:
        return container.role == "current" and not container.oneoff


class History:
    """One history; everything random in it comes from `seed`."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.backend = Estates(images={"app": "sha256:1", "other": "sha256:2"})
        self.services = self._services()
        self._behave("healthy")

    async def live(self) -> None:
        for _ in range(self.rng.randint(2, 7)):
            await self.rng.choice(
                (
                    self._change,
                    self._change,
                    self._up,
                    self._up_with_faults,
                    self._up_and_crash,
                    self._up_to_something_bad,
                    self._exit,
                    self._lose,
                    self._new_image,
                )
            )()
        await self._settle()

    def project(self) -> Project:
        return Project.from_canonical(
            {
                "version": 1,
                "name": "shop",
                "working_dir": "/srv",
                "config_files": ["/srv/compose.yaml"],
                "services": self.services,
                "networks": {"back": {"name": "shop_back"}, "front": {"name": "shop_front"}},
                "volumes": {"data": {"name": "shop_data"}},
            }
        )

    def _services(self) -> dict[str, dict[str, Any]]:
        made: dict[str, dict[str, Any]] = {}
        for name in sorted(self.rng.sample(NAMES, self.rng.randint(1, len(NAMES)))):
            made[name] = self._service(name, sorted(made))
        return made

    def _service(self, name: str, earlier: list[str]) -> dict[str, Any]:
        rng = self.rng
        service: dict[str, Any] = {
            "image": rng.choice(("app", "other")),
            "environment": {"MODE": rng.choice("abc")},
            "labels": {"tier": rng.choice("xy")},
            "scale": 1 if name == ONE_SHOT else rng.randint(0, 3),
            "networks": {key: {} for key in rng.sample(("back", "front"), rng.randint(1, 2))},
            "depends_on": {
                other: {
                    "condition": "service_completed_successfully"
                    if other == ONE_SHOT
                    else rng.choice(("service_started", "service_healthy")),
                    "restart": rng.random() < 0.3,
                    "required": rng.random() < 0.8,
                }
                for other in rng.sample(earlier, rng.randint(0, len(earlier)))
            },
        }
        if name != ONE_SHOT:
            service["healthcheck"] = {"test": ["CMD", "true"]}
        if rng.random() < 0.3:
            service["volumes"] = [{"type": "volume", "source": "data", "target": "/data"}]
        if rng.random() < 0.4:
            scratch = {"type": "volume", "target": SCRATCH}
            service["volumes"] = [*service.get("volumes", ()), scratch]
        if rng.random() < 0.3:
            service["ports"] = [{"target": 80, "published": "80", "protocol": "tcp"}]
        if rng.random() < 0.2:
            service["post_start"] = [{"command": ["true"]}]
            service["pre_stop"] = [{"command": ["true"]}]
        if rng.random() < 0.2:
            service["pre_start"] = [{"command": ["true"]}]
        if name != ONE_SHOT and rng.random() < 0.6:
            self._rolled_out(service)
        return service

    def _rolled_out(self, service: dict[str, Any]) -> None:
        rng = self.rng
        service["deploy"] = {
            "update_config": {
                "parallelism": rng.randint(0, 2),
                "order": rng.choice(("start-first", "stop-first")),
                "failure_action": rng.choice(("pause", "continue", "rollback")),
                "max_failure_ratio": rng.choice((0, 0.4)),
            }
        }
        if rng.random() < 0.3:
            canary = {"replicas": 1, "promote": rng.choice(("auto", "manual"))}
            service["extensions"] = {"x-bayplan": {"canary": canary}}

    def _behave(self, health: HealthStatus) -> None:
        good = Behaviour(health=health)
        self.backend.behaviours = dict.fromkeys(NAMES, good)
        self.backend.behaviours[ONE_SHOT] = Behaviour(exit_code=0 if health == "healthy" else 1)

    # What may happen

    async def _change(self) -> None:
        rng = self.rng
        name = rng.choice(sorted(self.services))
        service = dict(self.services[name])
        match rng.randint(0, 7):
            case 0:
                service["environment"] = {"MODE": rng.choice("abcdef")}
            case 1:
                service["labels"] = {"tier": rng.choice("xyz")}
            case 2:
                service["scale"] = 1 if name == ONE_SHOT else rng.randint(0, 4)
            case 3:
                keys = rng.sample(("back", "front"), rng.randint(1, 2))
                service["networks"] = {key: {} for key in keys}
            case 4:
                service["image"] = rng.choice(("app", "other"))
            case 5 if name != ONE_SHOT:
                self._rolled_out(service)
            case 6:
                service.pop("deploy", None)
            case _:
                self.services = self._services()
                return
        self.services = {**self.services, name: service}

    async def _up(self) -> None:
        await self._apply()

    async def _up_with_faults(self) -> None:
        failing = set(self.rng.sample(range(30), 3))
        self._fail(lambda number: number in failing, self.rng.random() < 0.5)
        await self._apply()

    async def _up_and_crash(self) -> None:
        """The daemon is killed after some steps: nothing further is done, nothing taken back."""
        cut = self.rng.randint(0, 25)
        self._fail(lambda number: number >= cut, self.rng.random() < 0.5)
        plan = await self._plan(self._policy())
        await self._execute(plan)
        self.backend.before = self.backend.after = None

    async def _up_to_something_bad(self) -> None:
        self._behave("unhealthy")
        await self._change()
        await self._apply()
        self._behave("healthy")
        for name, container in self.backend.containers.items():
            if container.health == "unhealthy":
                self.backend.containers[name] = dataclasses.replace(container, health="healthy")

    async def _exit(self) -> None:
        alive = [c for c in self.backend.containers.values() if c.alive]
        if alive:
            one = self.rng.choice(sorted(alive, key=lambda c: c.name))
            self.backend.containers[one.name] = dataclasses.replace(
                one, status="exited", exit_code=self.rng.choice((0, 1, 137)), health="none"
            )

    async def _lose(self) -> None:
        if self.backend.containers:
            name = self.rng.choice(sorted(self.backend.containers))
            self.backend.containers[name] = dataclasses.replace(
                self.backend.containers[name], status="created", health="none", lost=True
            )

    async def _new_image(self) -> None:
        self.backend.images["app"] = f"sha256:{self.rng.randint(10, 99)}"

    # How it is done

    def _policy(self) -> Policy:
        return Policy(
            remove_orphans=True,
            recreate="force" if self.rng.random() < 0.1 else "diverged",
            wait=self.rng.random() < 0.5,
        )

    def _fail(self, chosen: Any, afterwards: bool) -> None:
        count = -1

        def fault(action: AnyAction) -> Exception | None:
            nonlocal count
            count += 1
            return SimulatedFault(f"action {count}") if chosen(count) else None

        self.backend.before = None if afterwards else fault
        self.backend.after = fault if afterwards else None

    async def _apply(self) -> None:
        """What the daemon does: execute, and take back what failed of the rollouts."""
        plan = await self._plan(self._policy())
        outcome = await self._execute(plan)
        self.backend.before = self.backend.after = None
        for rollout in plan.rollouts:
            if any(outcome.statuses[number] != "done" for number in rollout.steps):
                back = rollback_strategy(rollout.new["service"], rollout.strategy)
                observed = await self._observe()
                reverse = revert("shop", rollout.service, observed, back, "it failed", 0.0)
                await self._execute(reverse)

    async def _settle(self) -> None:
        """With nothing in the way, two runs are enough, and a third has nothing to do."""
        promote = frozenset(self.services)
        policy = Policy(remove_orphans=True, promote=promote)
        await self._execute(await self._plan(policy))
        await self._execute(await self._plan(policy))
        last = await self._plan(policy)
        assert last.empty, last.text()
        wanted = {name: s.replicas for name, s in self.project().services.items()}
        there = Counter(c.service for c in self.backend.containers.values())
        assert {name: there[name] for name in wanted} == wanted
        assert set(there) <= set(wanted)
        assert {c.role for c in self.backend.containers.values()} <= {"current"}
        assert not any(c.oneoff for c in self.backend.containers.values())
        down = tear_down("shop", self.project(), await self._observe(), Removal(volumes=True), 0.0)
        assert (await self._execute(down)).ok
        left = (self.backend.containers, self.backend.networks, self.backend.volumes)
        assert left == ({}, {}, {})

    async def _observe(self) -> Observed:
        wanted = self.project()
        return await self.backend.observe(
            "shop",
            images=referenced(wanted),
            networks=[network.name for network in wanted.networks.values()],
            volumes=[volume.name for volume in wanted.volumes.values()],
        )

    async def _plan(self, policy: Policy) -> Plan:
        return reconcile(self.project(), await self._observe(), policy, 0.0)

    async def _execute(self, plan: Plan) -> Outcome:
        outcome = await execute(plan, self.backend, lambda event: None, parallel=4)
        for failure in outcome.failures:
            assert isinstance(failure.error, EXPECTED), (failure, plan.text())
        return outcome


@pytest.mark.parametrize("share", range(SHARES))
def test_every_history_ends_as_wanted(share: int) -> None:
    async def main() -> None:
        for seed in range(share, HISTORIES, SHARES):
            try:
                await History(seed).live()
            except AssertionError as error:
                raise AssertionError(f"history {seed}: {error}") from error

    asyncio.run(main())
