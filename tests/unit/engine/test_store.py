"""The state database: what is written is read, across versions and processes."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.engine import migrations
from orchestrator.engine.errors import NameTaken, StoreError, chain
from orchestrator.engine.records import (
    ContainerRecord,
    EndpointRecord,
    Load,
    NetworkRecord,
    PortRecord,
    ProcessRecord,
    ProjectRecord,
)
from orchestrator.engine.store import FILE_NAME, Store
from orchestrator.planning.health import HealthState, ProbeResult


def container(id: str = "c1", name: str = "shop-web-1", project: str = "shop") -> ContainerRecord:
    return ContainerRecord(
        id=id,
        name=name,
        project=project,
        service="web",
        number=1,
        source=("/srv/compose.yaml",),
        spec={"service": {"name": "web", "labels": {"tier": "front"}}},
        image="app",
        image_id="sha256:1",
        created_at=1.5,
        process=ProcessRecord(command=("httpd", "-f"), health={"test": ["CMD", "true"]}),
        endpoints=(
            EndpointRecord(
                network="shop_default",
                network_id="n1",
                address="10.0.0.2",
                mac="02:00:00:00:00:01",
                aliases=("web",),
            ),
        ),
        ports=(PortRecord(host_ip="", host_port=8080, container_port=80, protocol="tcp"),),
        volumes={"/data": "abc"},
        health=HealthState(
            status="healthy",
            results=(ProbeResult(started_at=1.0, finished_at=2.0, exit_code=0, output="ok"),),
        ),
    )


def project(spec: dict[str, object]) -> ProjectRecord:
    return ProjectRecord(
        name="shop",
        working_dir="/srv",
        config_files=("/srv/compose.yaml",),
        spec=spec,
        digest=f"sha256:{spec}",
        updated_at=1.0,
    )


def test_a_container_is_read_as_it_was_written(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_container(container())
    with Store(tmp_path) as store:
        assert store.container("c1") == container()
        assert store.container_named("shop-web-1") == container()
        assert store.containers("shop") == [container()]
        assert store.containers("other") == []


def test_a_change_touches_the_named_fields_only(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_container(container())
        updated = store.update_container("c1", intent="running", restarts=3, health=None)
        assert updated is not None
        assert (updated.intent, updated.restarts, updated.health) == ("running", 3, None)
        assert updated.endpoints == container().endpoints
        assert store.update_container("gone", intent="running") is None


def test_a_name_belongs_to_one_container(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_container(container())
        with pytest.raises(NameTaken, match="shop-web-1 is taken by project shop"):
            store.add_container(container(id="c2", project="other"))
        store.remove_container("c1")
        store.add_container(container(id="c2", project="other"))


def test_what_a_removed_replica_leaves_is_kept_until_it_is_taken_over(tmp_path: Path) -> None:
    successor = dataclasses.replace(container(), volumes={"/more": "def"})
    with Store(tmp_path) as store:
        store.add_container(container())
        store.bequeath("c1")
        store.remove_container("c1")
        # One that was cut short before it had taken anything over.
        store.add_container(dataclasses.replace(container(), volumes={}))
        store.bequeath("c1")
        store.remove_container("c1")
    with Store(tmp_path) as store:
        assert store.inheritance("shop") == {("web", 1): {"/data": "abc"}}
        store.add_container(successor)
        store.bequeath("c1")
        store.remove_container("c1")
        assert store.inheritance("shop") == {("web", 1): {"/data": "abc", "/more": "def"}}
        store.forget_inheritance("shop", "web", 2)
        store.forget_inheritance("shop", "api")
        store.forget_inheritance("other")
        assert store.inheritance("shop")
        store.forget_inheritance("shop", "web", 1)
        assert store.inheritance("shop") == {}


def test_one_off_containers_and_projects_with_containers_are_found(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_container(container())
        one_off = dataclasses.replace(container("c2", "shop-web-run-1"), oneoff=True)
        store.add_container(one_off)
        assert store.oneoffs() == [one_off]
        assert store.has_containers("shop")
        assert not store.has_containers("other")


def test_a_revision_is_counted_when_the_project_differs(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        assert store.put_project(project({"a": 1})) == 1
        assert store.put_project(project({"a": 1})) == 1
        assert store.put_project(project({"a": 2})) == 2
        store.remove_project("shop")
        assert store.project("shop") is None
        assert [revision.number for revision in store.revisions("shop")] == [1, 2]


def test_the_last_used_load_comes_first(tmp_path: Path) -> None:
    def load(name: str, at: float) -> Load:
        return Load(
            directory="/srv",
            project=name,
            config_files=("/srv/compose.yaml",),
            inputs={"files": {}},
            spec={"name": name},
            used_at=at,
        )

    with Store(tmp_path) as store:
        store.put_load(load("old", 1.0))
        store.put_load(load("new", 2.0))
        assert [found.project for found in store.loads("/srv")] == ["new", "old"]
        assert store.loads("/elsewhere") == []


def test_networks_are_kept_by_name(tmp_path: Path) -> None:
    record = NetworkRecord(
        name="shop_default",
        id="n1",
        key="default",
        project="shop",
        spec={"internal": True},
        created_at=1.0,
    )
    with Store(tmp_path) as store:
        store.put_network(record)
        assert store.network("shop_default") == record
        store.remove_network("shop_default")
        assert store.networks() == []


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_container(container())
        with pytest.raises(StoreError):
            store.update_container("c1", no_such_field=1)
        assert store.container("c1") == container()


def test_a_full_disk_is_told_and_costs_nothing_but_what_it_had_no_room_for(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put_project(project({"services": {}}))
        pages = store._database.execute("PRAGMA page_count").fetchone()[0]
        store._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError) as caught:
            store.put_project(project({"services": {"web": {"command": "x" * 100_000}}}))
        assert chain(caught.value) == "write the state database: database or disk is full"
        store._database.execute("PRAGMA max_page_count = 1000000")
        found = store.project("shop")
        assert found is not None and found.spec == {"services": {}}
        store.put_project(project({"services": {"web": {}}}))


def test_migrations_run_once_and_from_any_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path) as store:
        store.add_container(container())
    later = (*migrations.MIGRATIONS, "ALTER TABLE networks ADD COLUMN note TEXT;")
    monkeypatch.setattr(migrations, "MIGRATIONS", later)
    for _ in range(2):
        with Store(tmp_path) as store:
            assert store.container("c1") == container()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    assert database.execute("PRAGMA user_version").fetchone() == (len(later),)
    database.close()


def test_a_database_of_a_later_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("PRAGMA user_version = 999")
    database.close()
    with pytest.raises(StoreError, match="has version 999"):
        Store(tmp_path)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError):
        Store(tmp_path)


@pytest.mark.parametrize("left", [False, True])
def test_others_can_read_neither_it_nor_the_files_beside_it(tmp_path: Path, left: bool) -> None:
    if left:  # by a version that was less careful
        with closing(sqlite3.connect(tmp_path / "state.db")) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE t (x)")
            (tmp_path / "state.db").chmod(0o644)
            (tmp_path / "state.db-wal").chmod(0o644)
            store = Store(tmp_path)
    else:
        store = Store(tmp_path)
    with store:
        store.put_project(project({"services": {}}))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes.keys() == {"state.db", "state.db-wal", "state.db-shm"}
    assert set(modes.values()) == {0o600}


def test_labels_are_those_that_composes_tools_know() -> None:
    labels = container().labels
    assert labels["com.docker.compose.project"] == "shop"
    assert labels["com.docker.compose.container-number"] == "1"
    assert labels["tier"] == "front"
