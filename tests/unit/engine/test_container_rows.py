"""Records as rows, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.engine.records import ContainerRecord, EndpointRecord
from orchestrator.engine.store import Store


def record(name: str) -> ContainerRecord:
    return ContainerRecord(
        id=name,
        name=name,
        project="shop",
        service="web",
        number=1,
        source=("/srv/compose.yaml",),
        spec={"service": {"image": "web:1"}, "volumes": {}, "networks": {}},
        image="web:1",
        image_id="",
        created_at=1.5,
    )


def test_what_another_connection_has_changed_is_read(tmp_path: Path) -> None:
    with Store(tmp_path) as ours, Store(tmp_path) as theirs:
        ours.add_container(record("a"))
        assert ours.container("a") == record("a")
        theirs.update_container("a", error="port is taken", source=("/srv/other.yaml",))
        found = ours.container("a")
        assert found is not None
        assert (found.error, found.source) == ("port is taken", ("/srv/other.yaml",))


def test_each_field_that_changes_is_read_anew_and_the_others_stay(tmp_path: Path) -> None:
    endpoint = EndpointRecord(network="shop_default", network_id="n", address="10.0.0.2", mac="")
    with Store(tmp_path) as store:
        store.add_container(record("a"))
        before = store.container("a")
        after = store.update_container("a", endpoints=(endpoint,), restarts=3, hooks_due=True)
        assert before is not None and after is not None
        assert (after.endpoints, after.restarts, after.hooks_due) == ((endpoint,), 3, True)
        assert after.spec is before.spec
        assert store.container("a") is after


def test_a_name_that_is_given_again_is_another_container(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_container(record("a"))
        store.remove_container("a")
        assert store.container("a") is None
        store.add_container(record("a"))
        assert store.container("a") == record("a")
