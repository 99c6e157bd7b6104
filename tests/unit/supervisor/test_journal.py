"""What has happened is kept over a restart, bounded, and told in Docker's words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.engine.events import ContainerEvent, EventBus, ResourceEvent
from orchestrator.supervisor import journal as module
from orchestrator.supervisor.docker_events import told
from orchestrator.supervisor.journal import Filter, Journal, Operation


def container(action: str, **attributes: object) -> ContainerEvent:
    return ContainerEvent(
        project="shop",
        at=1.0,
        action=action,
        id="c1",
        name="shop-web-1",
        service="web",
        attributes=dict(attributes),
    )


def names(event: ContainerEvent | ResourceEvent) -> list[str]:
    networks = {"shop_default": "10.0.0.2"}
    return [f"{e['type']} {e['action']}" for e in told(event, lambda _id: networks)]


def test_events_have_dockers_names() -> None:
    assert names(container("start")) == ["network connect", "container start"]
    assert names(container("die", exitCode=1)) == ["container die", "network disconnect"]
    assert names(container("die", oomKilled=True))[:2] == ["container oom", "container die"]
    assert names(container("health_status", status="healthy")) == [
        "container health_status: healthy"
    ]

    def resource(kind: str, action: str) -> list[str]:
        return names(ResourceEvent(project="", at=0.0, action=action, kind=kind, name="n"))

    assert resource("volume", "remove") == ["volume destroy"]
    assert resource("network", "create") == ["network create"]
    assert resource("image", "remove") == ["image delete"]
    assert resource("image", "pull") == ["image pull"]


def test_events_and_operations_outlast_the_daemon(tmp_path: Path) -> None:
    async def first() -> None:
        bus = EventBus()
        journal = Journal(tmp_path, bus, lambda _id: {})
        journal.open()
        bus.publish(container("start"))
        journal.record(
            Operation(project="shop", command="up", started_at=1.0, finished_at=2.0, outcome="done")
        )
        journal.close()

    async def second() -> None:
        journal = Journal(tmp_path, EventBus(), lambda _id: {})
        journal.publish({"type": "plan", "project": "shop", "at": 2.0})
        assert [event["type"] for _, event in journal.events(Filter())] == ["container", "plan"]
        assert [operation.command for operation in journal.operations("shop")] == ["up"]
        journal.close()

    asyncio.run(first())
    asyncio.run(second())


def test_the_oldest_events_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_EVENTS", 3)

    async def main() -> None:
        journal = Journal(tmp_path, EventBus(), lambda _id: {})
        for number in range(10):
            journal.publish({"type": "plan", "project": "p", "at": float(number)})
            journal.flush()
        assert [event["at"] for _, event in journal.events(Filter())] == [7.0, 8.0, 9.0]
        journal.close()

    asyncio.run(main())


def test_a_damaged_journal_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / module.FILE_NAME).write_bytes(b"no database at all" * 100)

    async def main() -> None:
        journal = Journal(tmp_path, EventBus(), lambda _id: {})
        assert journal.events(Filter()) == []
        journal.close()

    asyncio.run(main())
    assert (tmp_path / "journal.damaged").exists()


def test_an_operation_ends_where_the_journal_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        journal = Journal(tmp_path, EventBus(), lambda _id: {})
        journal._database.execute("PRAGMA query_only = 1")
        journal.publish({"type": "plan", "project": "shop", "at": 2.0})
        journal.record(
            Operation(project="shop", command="up", started_at=1.0, finished_at=2.0, outcome="done")
        )
        assert journal.events(Filter()) == []
        journal.close()

    asyncio.run(main())
    assert "write the journal: attempt to write a readonly database" in caplog.text


def test_an_event_about_a_name_that_is_no_text_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal(tmp_path, EventBus(), lambda _id: {})
        journal.publish({"type": "plan", "project": "shop", "at": 2.0, "text": "read \udcff"})
        journal.flush()
        assert [event["text"] for _, event in journal.events(Filter())] == ["read \udcff"]
        journal.close()

    asyncio.run(main())
