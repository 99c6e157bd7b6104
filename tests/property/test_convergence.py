"""Whatever happens on the way, a simulated host comes to be what the project says.

Safety: no plan is refused by the backend's own rules. Convergence: once faults end, at most
two runs bring the project up, and the next plan is empty.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.executor import execute
from orchestrator.engine.simulated import Behaviour, SimulatedBackend, SimulatedFault
from orchestrator.planning.actions import AnyAction
from orchestrator.planning.observed import Observed
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy, Removal
from orchestrator.planning.reconcile import reconcile
from orchestrator.planning.teardown import tear_down
from specs.project import Project

NAMES = ("api", "db", "job", "mail", "web")
CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
CHECK = {"test": ["CMD", "true"]}


@st.composite
def services(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Up to five services whose dependencies point to names before their own."""
    chosen = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    made: dict[str, dict[str, Any]] = {}
    for name in sorted(chosen):
        earlier = sorted(made)
        service: dict[str, Any] = {
            "environment": {"MODE": draw(st.sampled_from("abc"))},
            "labels": {"tier": draw(st.sampled_from("xy"))},
            "scale": draw(st.integers(0, 3)),
            "networks": {key: {} for key in draw(st.sets(st.sampled_from(("back", "front"))))},
            "healthcheck": CHECK,
            "depends_on": {
                other: {
                    "condition": draw(st.sampled_from(CONDITIONS))
                    if other != "job"
                    else CONDITIONS[2],
                    "restart": draw(st.booleans()),
                    "required": draw(st.booleans()),
                }
                for other in (draw(st.sets(st.sampled_from(earlier))) if earlier else ())
            },
        }
        for other, terms in service["depends_on"].items():
            if other != "job" and terms["condition"] == CONDITIONS[2]:
                terms["condition"] = CONDITIONS[1]
        if draw(st.booleans()):
            service["build"] = {"context": "/srv"}
        else:
            service["image"] = draw(st.sampled_from(("app", "other")))
        if draw(st.booleans()):
            service["volumes"] = [{"type": "volume", "source": "data", "target": "/data"}]
        made[name] = service
    return made


def project(made: dict[str, dict[str, Any]], internal: bool) -> Project:
    return Project.from_canonical(
        {
            "version": 1,
            "name": "shop",
            "working_dir": "/srv",
            "config_files": ["/srv/compose.yaml"],
            "services": made,
            "networks": {
                "back": {"name": "shop_back", "internal": internal},
                "front": {"name": "shop_front"},
            },
            "volumes": {"data": {"name": "shop_data"}},
        }
    )


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Project, set[int], set[int], bool]]:
    """Projects applied one after the other: (project, numbers of the actions that fail before
    they act, and of those that fail after, whether containers are recreated by force)."""
    numbers = st.sets(st.integers(0, 25), max_size=4)
    return [
        (project(draw(services()), draw(st.booleans())), draw(numbers), draw(numbers), force)
        for force in draw(st.lists(st.booleans(), min_size=1, max_size=4))
    ]


class Faults:
    """Lets the actions of given numbers fail."""

    def __init__(self, numbers: set[int]) -> None:
        self._numbers = numbers
        self._count = -1

    def __call__(self, action: AnyAction) -> Exception | None:
        self._count += 1
        return SimulatedFault(f"action {self._count}") if self._count in self._numbers else None


def world() -> SimulatedBackend:
    return SimulatedBackend(
        images={"app": "sha256:1", "other": "sha256:2"},
        behaviours={
            **dict.fromkeys(NAMES, Behaviour(health="healthy")),
            "job": Behaviour(exit_code=0),
        },
    )


async def observe(backend: SimulatedBackend, wanted: Project) -> Observed:
    return await backend.observe(
        "shop",
        images=[s.image or f"shop-{n}" for n, s in wanted.services.items()],
        networks=[network.name for network in wanted.networks.values()],
        volumes=[volume.name for volume in wanted.volumes.values()],
    )


async def attempt(backend: SimulatedBackend, wanted: Project, policy: Policy) -> Plan:
    plan = reconcile(wanted, await observe(backend, wanted), policy, 0.0)
    outcome = await execute(plan, backend, lambda event: None, parallel=4)
    for failure in outcome.failures:
        assert isinstance(failure.error, SimulatedFault), (plan.text(), failure.error)
    return plan


@settings(max_examples=100, deadline=None)
@given(histories())
def test_every_history_converges(
    history: list[tuple[Project, set[int], set[int], bool]],
) -> None:
    async def main() -> None:
        backend = world()
        for wanted, before, after, force in history:
            policy = Policy(
                remove_orphans=True, recreate="force" if force else "diverged", wait=True
            )
            backend.before, backend.after = Faults(before), Faults(after)
            await attempt(backend, wanted, policy)
            backend.before = backend.after = None
            calm = dataclasses.replace(policy, recreate="diverged")
            await attempt(backend, wanted, calm)
            await attempt(backend, wanted, calm)
            last = reconcile(wanted, await observe(backend, wanted), calm, 0.0)
            assert last.empty, last.text()
            counts = dict.fromkeys(wanted.services, 0)
            for container in backend.containers.values():
                counts[container.service] += 1
            assert counts == {name: s.replicas for name, s in wanted.services.items()}
        plan = tear_down("shop", wanted, await observe(backend, wanted), Removal(volumes=True), 0.0)
        assert (await execute(plan, backend, lambda event: None)).ok
        assert (backend.containers, backend.networks, backend.volumes) == ({}, {}, {})

    asyncio.run(main())


@settings(max_examples=50, deadline=None)
@given(services(), st.sampled_from(NAMES), st.booleans())
def test_one_changed_field_touches_its_service_only(
    made: dict[str, dict[str, Any]], name: str, in_place: bool
) -> None:
    if name not in made:
        return
    for service in made.values():
        for terms in service["depends_on"].values():
            terms["restart"] = False

    async def main() -> None:
        backend = world()
        await attempt(backend, project(made, False), Policy())
        changed = {**made, name: {**made[name], "labels": {"tier": "z"}}}
        if not in_place:
            changed[name]["environment"] = {"MODE": "z"}
        wanted = project(changed, False)
        plan = reconcile(wanted, await observe(backend, wanted), Policy(), 0.0)
        touched = {step.action.details()["service"] for step in plan.steps}
        assert touched <= {name}

    asyncio.run(main())


@settings(max_examples=100, deadline=None)
@given(services())
def test_the_same_arguments_give_the_same_plan(made: dict[str, dict[str, Any]]) -> None:
    wanted = project(made, False)
    shuffled = project(dict(reversed(list(made.items()))), False)
    observed = Observed(images={"app": "sha256:1"})
    first = reconcile(wanted, observed, Policy(), 0.0)
    assert first.to_json() == reconcile(shuffled, observed, Policy(), 0.0).to_json()
