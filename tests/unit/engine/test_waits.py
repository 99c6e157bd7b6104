"""Waiting for a container's condition is woken by events and ends as soon as it can."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.engine.errors import NoSuchContainer, WaitFailed, WaitTimeout
from orchestrator.engine.events import ContainerEvent, EventBus
from orchestrator.engine.records import ContainerRecord, ProcessRecord
from orchestrator.engine.waits import wait
from orchestrator.planning.actions import Cause, WaitCondition, WaitContainer
from orchestrator.planning.health import HealthState, ProbeResult
from orchestrator.planning.observed import ContainerStatus

RECORD = ContainerRecord(
    id="c1",
    name="shop-db-1",
    project="shop",
    service="db",
    number=1,
    source=(),
    spec={"service": {"name": "db"}},
    image="app",
    image_id="sha256:1",
    created_at=0.0,
    started_at=1.0,
    process=ProcessRecord(health={"test": ["CMD", "true"]}),
)
HEALTHY = HealthState(status="healthy")
EVENT = ContainerEvent(
    project="shop", at=0.0, action="health_status", id="c1", name="shop-db-1", service="db"
)


class Db:
    """A container whose state a test changes."""

    def __init__(self, record: ContainerRecord | None, status: ContainerStatus) -> None:
        self.record = record
        self.status = status

    def look(self, name: str) -> tuple[ContainerRecord, ContainerStatus] | None:
        return None if self.record is None else (self.record, self.status)


def action(condition: WaitCondition, timeout: float | None = 5.0) -> WaitContainer:
    return WaitContainer(
        name="shop-db-1",
        service="db",
        cause=Cause(reason="a test"),
        condition=condition,
        timeout=timeout,
    )


def satisfied(condition: WaitCondition, db: Db) -> None:
    asyncio.run(wait(action(condition), db.look, EventBus()))


def test_a_condition_that_holds_waits_for_nothing() -> None:
    satisfied("healthy", Db(replace(RECORD, health=HEALTHY), "running"))
    satisfied("started", Db(RECORD, "running"))
    satisfied("completed", Db(replace(RECORD, exit_code=0, finished_at=2.0), "exited"))


def test_ready_means_healthy_running_or_completed() -> None:
    plain = replace(RECORD, process=ProcessRecord())
    satisfied("ready", Db(replace(RECORD, health=HEALTHY), "running"))
    satisfied("ready", Db(plain, "running"))
    satisfied("ready", Db(replace(plain, exit_code=0, finished_at=2.0), "exited"))


def test_an_event_wakes_the_wait() -> None:
    async def main() -> None:
        bus, db = EventBus(), Db(RECORD, "running")
        waiting = asyncio.ensure_future(wait(action("healthy"), db.look, bus))
        await asyncio.sleep(0)
        bus.publish(EVENT)
        await asyncio.sleep(0)
        assert not waiting.done()
        db.record = replace(RECORD, health=HEALTHY)
        bus.publish(EVENT)
        await waiting

    asyncio.run(main())


@pytest.mark.parametrize(
    ("db", "condition", "message"),
    [
        (
            Db(replace(RECORD, exit_code=3, finished_at=2.0), "exited"),
            "completed",
            "container shop-db-1 exited with 3",
        ),
        (
            Db(
                replace(
                    RECORD,
                    health=HealthState(
                        status="unhealthy",
                        results=(
                            ProbeResult(
                                started_at=0, finished_at=1, exit_code=1, output="no\nrefused\n"
                            ),
                        ),
                    ),
                ),
                "running",
            ),
            "healthy",
            "container shop-db-1 is unhealthy: refused",
        ),
        (
            Db(replace(RECORD, process=ProcessRecord()), "running"),
            "healthy",
            "has no healthcheck",
        ),
    ],
)
def test_what_cannot_come_to_hold_fails_at_once(
    db: Db, condition: WaitCondition, message: str
) -> None:
    with pytest.raises(WaitFailed, match=message):
        satisfied(condition, db)


def test_an_exit_that_a_restart_follows_is_waited_out() -> None:
    ended = replace(RECORD, exit_code=1, finished_at=2.0, restart_at=3.0)
    with pytest.raises(WaitTimeout, match=r"container shop-db-1 is not healthy after 0.01 s"):
        asyncio.run(wait(action("healthy", 0.01), Db(ended, "exited").look, EventBus()))


def test_an_exit_that_is_not_written_down_yet_is_no_verdict() -> None:
    with pytest.raises(WaitTimeout):
        asyncio.run(wait(action("completed", 0.01), Db(RECORD, "exited").look, EventBus()))


def test_a_container_that_is_not_there_is_an_error() -> None:
    with pytest.raises(NoSuchContainer):
        satisfied("started", Db(None, "created"))
