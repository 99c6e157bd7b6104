"""The long operations on a project: observe, plan, execute, tell; one at a time per project.

Each takes `emit`, which gets the events of the run as they come, and `cancel`, which ends it
cleanly. What goes wrong before anything is done is raised; what fails on the way is in the
outcome.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from time import time
from typing import Any

from orchestrator.engine import preflight
from orchestrator.engine.errors import EngineError, chain
from orchestrator.engine.events import BuildEvent, Event, PullEvent, StepEvent, WarningEvent
from orchestrator.engine.executor import PARALLEL, Outcome, execute
from orchestrator.engine.exits import HOST_FAULTS
from orchestrator.engine.local import LocalBackend
from orchestrator.engine.rollout_table import RolloutRecord
from orchestrator.planning import lifecycle
from orchestrator.planning.actions import BuildImage
from orchestrator.planning.blueprint import mounted_ids
from orchestrator.planning.builds import plan_builds
from orchestrator.planning.errors import PlanningError
from orchestrator.planning.images import referenced
from orchestrator.planning.observed import Observed
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Pin, Policy, Removal
from orchestrator.planning.reconcile import reconcile, reconcile_images
from orchestrator.planning.teardown import tear_down
from orchestrator.planning.undo import undo
from orchestrator.supervisor.bodies import BuildOptions, LifecycleOptions
from orchestrator.supervisor.errors import error_body
from orchestrator.supervisor.projects import former_project, record_project, resolve_project
from orchestrator.supervisor.rollouts import NoSuchRollout, RolloutKeeper, RolloutNotRunning
from specs.project import Project

_log = logging.getLogger(__name__)

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where a run's events go, and what ends it early; a `dry` one only tells its plan, and
    `parallel` bounds the actions under way."""

    emit: Emit
    cancel: asyncio.Event
    dry: bool = False
    parallel: int = PARALLEL


class Operations:
    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend
        self._locks: dict[str, asyncio.Lock] = {}
        self._rollouts = RolloutKeeper(backend, self._take_back)

    def exclusive(self, project: str) -> AbstractAsyncContextManager[None]:
        """Hold the project: the operations on it follow one another."""
        return self._locks.setdefault(project, asyncio.Lock())

    async def observe(self, project: Project, images: Iterable[str] = ()) -> Observed:
        """What there is of the project, and of what it names, `images` besides."""
        return await self._backend.observe(
            project.name,
            images={*referenced(project), *images},
            networks=[network.name for network in project.networks.values()],
            volumes=[volume.name for volume in project.volumes.values()],
        )

    async def plan(self, project: Project, policy: Policy) -> Plan:
        observed = await self.observe(project, [pin.image for pin in policy.pins.values()])
        return reconcile(project, observed, policy, time())

    async def up(self, project: Project, policy: Policy, run: Run) -> dict[str, Any]:
        """Make the project so; the result is the last event of the run."""
        async with self.exclusive(project.name):
            observed = await self.observe(project)
            if observed.containers and _may_refresh(project, policy):
                images = reconcile_images(project, observed, policy, time())
                if any(step.action.name in observed.images for step in images.steps):
                    # What another image changes is planned once it is there.
                    failed = await self._execute(images, run)
                    if failed is not None:
                        return failed
                    policy = dataclasses.replace(policy, refresh=False)
                    observed = await self.observe(project)
            plan = reconcile(project, observed, policy, time())
            if not plan.empty:
                await asyncio.to_thread(preflight.check, self._backend.host, plan)
            record_project(self._backend.host.store, project)
            return await self._apply(plan, project, run)

    async def _apply(self, plan: Plan, project: Project, run: Run) -> dict[str, Any]:
        """Execute the plan with its rollouts; the result is the last event of the run."""
        run.emit({"type": "plan", **plan.to_json()})
        if plan.empty:
            return result(None)
        ids = self._rollouts.begin(plan)
        outcome = await self._run(plan, run, ids)
        failed = await self._rollouts.judge(plan, ids, outcome, run.parallel)
        if not outcome.ok and not outcome.canceled:
            await self._undo(plan, outcome, project, run.parallel)
        ended = result(outcome)
        for error in failed.values():
            ended["error"] = error_body(error)
            ended["exit_code"] = ended["error"]["exit_code"]
        return ended

    def rollouts(self, project: str, service: str = "") -> list[RolloutRecord]:
        """The project's or one service's rollouts, the newest first."""
        found = self._backend.host.store.rollouts.of_project(project)
        return [record for record in found if service in ("", record.service)]

    def pause_rollout(self, project: str, service: str) -> RolloutRecord:
        """Have a rollout switch no more traffic and begin no other batch; a replica that is down
        for its exchange comes up first. Raises NoSuchRollout, RolloutNotRunning."""
        record = self._latest(project, service)
        if record.state != "running":
            raise RolloutNotRunning(service, record.state)
        self._backend.host.store.rollouts.update(record.id, state="paused", reason="paused")
        self._backend.rollouts.pause(project, service)
        return self._latest(project, service)

    async def resume_rollout(self, name: str, service: str, run: Run) -> dict[str, Any]:
        """Take a rollout on from where it stands, canaries that wait for a word included."""
        record = self._latest(name, service)
        held = self._locks.get(name)
        if record.state == "paused" and held is not None and held.locked():
            # It may not have come to where it would stand still: then it simply goes on.
            self._backend.host.store.rollouts.update(record.id, state="running", reason="")
        async with self.exclusive(name):
            project = resolve_project(self._backend.host.store, name, None, None)
            policy = Policy(services=(service,), dependencies=False, promote=frozenset((service,)))
            return await self._apply(await self.plan(project, policy), project, run)

    async def undo_rollout(self, name: str, service: str, run: Run) -> dict[str, Any]:
        """Bring a service back to the form that it had before its last rollout."""
        record = self._latest(name, service)
        if record.state == "running":
            self.pause_rollout(name, service)
        async with self.exclusive(name):
            store = self._backend.host.store
            if not await self._rollouts.revert_record(record, "undone", run.parallel):
                raise EngineError(f"the rollout of service {service} cannot be undone")
            former = record.old["spec"]
            project = former_project(store, name, service, former["service"])
            pin = Pin(image=str(record.old["image_id"]), mounted=mounted_ids(former))
            policy = Policy(services=(service,), dependencies=False, pins={service: pin})
            plan = await self.plan(project, policy)
            if not plan.empty:
                await asyncio.to_thread(preflight.check, self._backend.host, plan)
            record_project(store, project)
            return await self._apply(plan, project, run)

    async def resume_unfinished(self, cancel: asyncio.Event) -> None:
        """After a start of the daemon: take on, or take back, what the last one left half-way."""
        for record in self._backend.host.store.rollouts.unfinished():
            _log.info("the rollout of %s/%s goes on", record.project, record.service)
            try:
                if record.state == "running" and time() < record.deadline:
                    run = Run(emit=lambda event: None, cancel=cancel)
                    ended = await self.resume_rollout(record.project, record.service, run)
                    if not ended["ok"]:
                        _log.error("%s", ended["error"]["message"])
                    self._settle(record)
                else:
                    async with self.exclusive(record.project):
                        await self._rollouts.revert_record(record, "its deadline has passed")
            except (PlanningError, *HOST_FAULTS) as exc:
                _log.error("the rollout of %s/%s: %s", record.project, record.service, chain(exc))

    def _settle(self, record: RolloutRecord) -> None:
        """A rollout that was killed after its last step has nothing left to do."""
        table = self._backend.host.store.rollouts
        current = table.get(record.id)
        if current is not None and current.state == "running":
            table.update(record.id, state="completed", finished_at=time())

    def _latest(self, project: str, service: str) -> RolloutRecord:
        record = self._backend.host.store.rollouts.latest(project, service)
        if record is None:
            raise NoSuchRollout(project, service)
        return record

    async def down(
        self, name: str, project: Project | None, removal: Removal, run: Run
    ) -> dict[str, Any]:
        """Take the project down; what is not there is no error."""
        await self.make_room()
        async with self.exclusive(name):
            images: set[str] = set()
            if removal.images is not None:
                images = {r.image for r in self._backend.host.store.containers(name)}
            observed = await self._backend.observe(name, images=images)
            plan = tear_down(name, project, observed, removal, time())
            failed = await self._execute(plan, run)
            if failed is None and not run.dry:
                for service in removal.services or (None,):
                    self._backend.host.store.forget_inheritance(name, service)
            return failed or result(None)

    async def build(self, project: Project, options: BuildOptions, run: Run) -> dict[str, Any]:
        """Build the images of the services that have build instructions."""
        plan = plan_builds(project, options.services, options.model(project))
        async with AsyncExitStack() as held:
            # No container is touched: only builds of the same image follow one another.
            for name in sorted({step.action.name for step in plan.steps}):
                await held.enter_async_context(self.exclusive(f"image {name}"))
            return await self._execute(plan, run) or result(None)

    async def lifecycle(
        self, name: str, verb: str, services: tuple[str, ...], options: LifecycleOptions, run: Run
    ) -> dict[str, Any]:
        """start, stop, restart or kill the project's containers."""
        if verb in ("stop", "kill"):
            await self.make_room()
        if verb == "kill":
            # At once: what another operation is doing may be what is to be ended.
            observed = await self._backend.observe(name)
            plan = lifecycle.kill(name, observed, services, options.signal)
            return await self._execute(plan, run) or result(None)
        async with self.exclusive(name):
            observed = await self._backend.observe(name)
            match verb:
                case "start":
                    plan = lifecycle.start(
                        name, observed, services, options.wait, options.wait_timeout
                    )
                case "stop":
                    plan = lifecycle.stop(name, observed, services, options.timeout)
                case _:
                    plan = lifecycle.restart(
                        name,
                        observed,
                        services,
                        options.timeout,
                        dependents=not options.no_deps,
                        deaf_timeout=options.deaf_timeout,
                    )
            return await self._execute(plan, run) or result(None)

    async def make_room(self) -> None:
        """What takes things down must be able to write that down, on a full disk, too."""
        await asyncio.to_thread(self._backend.host.reserve.give)

    async def carry_out(self, plan: Plan, run: Run) -> dict[str, Any]:
        """Execute a plan of the caller's, who holds the project; gives the last event."""
        return await self._execute(plan, run) or result(None)

    async def _execute(self, plan: Plan, run: Run) -> dict[str, Any] | None:
        """Tell and execute a plan; the result of the run where it failed, else None."""
        run.emit({"type": "plan", **plan.to_json()})
        if run.dry:
            return None
        outcome = await self._run(plan, run)
        return None if outcome.ok else result(outcome)

    async def _take_back(self, plan: Plan, parallel: int) -> Outcome:
        return await execute(plan, self._backend, self._backend.host.bus.publish, parallel=parallel)

    async def _run(self, plan: Plan, run: Run, ids: dict[str, int] | None = None) -> Outcome:
        bus = self._backend.host.bus

        def tell(event: StepEvent) -> None:
            if ids and event.status == "running":
                self._rollouts.step(plan, ids, event.id)
            run.emit(event.to_json())
            bus.publish(event)

        built = {step.action.service for step in plan.steps if isinstance(step.action, BuildImage)}

        def pass_on(event: Event) -> None:
            told = isinstance(event, BuildEvent | PullEvent | WarningEvent)
            others = isinstance(event, BuildEvent) and event.service not in built
            if told and event.project == plan.project and not others:
                run.emit(event.to_json())

        with bus.listen(pass_on):
            return await execute(
                plan, self._backend, tell, parallel=run.parallel, cancel=run.cancel
            )

    async def _undo(self, plan: Plan, outcome: Outcome, project: Project, parallel: int) -> None:
        """Take away what the failed run made in vain; a failure of that is not the cause."""
        reverse = undo(plan, outcome.statuses, await self.observe(project), time())
        await self._take_back(reverse, parallel)


def result(outcome: Outcome | None) -> dict[str, Any]:
    """The last event of a run; its error is the first failure, `failures` are all."""
    if outcome is None or outcome.ok:
        return {"type": "result", "ok": True, "error": None, "exit_code": 0}
    failures = [
        {"id": f.step.id, "resource": f.step.action.resource, **error_body(f.error)}
        for f in outcome.failures
    ]
    standing = sorted(id for id, status in outcome.statuses.items() if status in ("done", "failed"))
    error: dict[str, Any]
    if failures:
        error = {key: failures[0][key] for key in failures[0] if key not in ("id", "resource")}
    else:
        error = {
            "type": "Canceled",
            "message": "canceled; what was done stands",
            "hint": None,
            "exit_code": 130,
        }
    return {
        "type": "result",
        "ok": False,
        "error": error,
        "failures": failures,
        "ended": standing,
        "exit_code": error["exit_code"],
    }


def _may_refresh(project: Project, policy: Policy) -> bool:
    """Whether images that are there may be built or pulled again."""
    lasting = ("", "missing", "if_not_present", "never")
    return "always" in (policy.build, policy.pull) or any(
        service.pull_policy not in lasting for service in project.services.values()
    )
