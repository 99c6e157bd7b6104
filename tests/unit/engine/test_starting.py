"""What is on record of a container while it is being started."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.engine.containers import ContainerWork
from orchestrator.engine.host import Host
from orchestrator.engine.records import ContainerRecord, ProcessRecord
from orchestrator.engine.store import Store
from orchestrator.planning.health import HealthState
from runtime.container.states import ContainerState
from tests.unit.engine.test_container_rows import record


def test_the_health_of_the_last_run_is_not_taken_for_that_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path) as store:
        probed = ProcessRecord(health={"test": ["CMD", "true"]})
        well = HealthState(status="healthy")
        store.add_container(dataclasses.replace(record("a"), process=probed, health=well))
        host = SimpleNamespace(store=store, tell=lambda *_: None)
        work = ContainerWork(cast(Host, host))
        seen: list[str] = []

        def start(container: ContainerRecord) -> tuple[ContainerState, tuple[Any, ...], Any]:
            found = store.container(container.id)
            assert found is not None and found.health is not None
            seen.append(found.health.status)
            return ContainerState(id=container.id, status="running", started_at=1), (), ()

        monkeypatch.setattr(work, "_start", start)
        before = store.container("a")
        assert before is not None
        asyncio.run(work.run(before, fresh=True))
        assert seen == ["starting"]
