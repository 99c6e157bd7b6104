"""The state database is lost: what runs is known again all the same."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess

import pytest

from runtime.container.containers import Containers
from tests.integration.supervisor.harbour import Harbour
from tests.integration.supervisor.test_crashes import UP, stack, states, until


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_containers_are_adopted_from_their_own_files(harbour: Harbour, how: str) -> None:
    harbour.up(stack())
    before = harbour.containers()
    copies = [harbour.root / "projects" / "shop.json"]
    for container in before.values():
        copies.append(harbour.root / "containers" / container["id"] / "record.json")
    until(lambda: all(copy.exists() for copy in copies), "all of it is kept")
    harbour.kill()
    for path in harbour.root.glob("state.db*"):
        if how == "missing" or path.suffix != ".db":
            path.unlink()
        else:
            path.write_bytes(b"rubbish " * 4096)
    harbour.start()
    after = harbour.containers()
    assert states(harbour) == UP
    for name, container in before.items():
        for key in ("id", "service", "number", "networks", "labels", "started_at", "exit_code"):
            assert after[name][key] == container[key], (name, key)
    if how == "damaged":
        assert list(harbour.root.glob("state.db.damaged-*"))
        assert "is damaged" in (harbour.run / "daemon.log").read_text()
    until(lambda: harbour.containers()["shop-store-1"]["health"] == "healthy", "it is probed")
    assert harbour.up(stack()) == []
    run = harbour.runs()[after["shop-store-1"]["id"]]
    os.kill(run.pid, signal.SIGKILL)
    until(
        lambda: harbour.containers()["shop-store-1"]["restarts"] == 1, "the store is started again"
    )
    until(lambda: states(harbour) == UP, "everything runs again")


def test_what_was_removed_is_not_adopted(harbour: Harbour) -> None:
    harbour.up(stack())
    assert harbour.result("down", options={"volumes": True})["ok"]
    harbour.stop()
    for path in harbour.root.glob("state.db*"):
        path.unlink()
    harbour.start()
    assert harbour.containers() == {}
    assert list((harbour.root / "projects").glob("*.json")) == []


def test_the_ports_of_a_container_that_nobody_knows_are_given_up(harbour: Harbour) -> None:
    shared = {"target": 80, "published": "18094", "protocol": "tcp", "mode": "ingress"}
    own = {"target": 81, "published": "18095-18096", "protocol": "tcp", "mode": "ingress"}
    project = stack(job={"command": ["sleep", "1000"], "ports": [shared, own]})
    harbour.up(project)
    id = harbour.containers()["shop-job-1"]["id"]
    harbour.stop()
    with contextlib.closing(Containers(harbour.root, harbour.run)) as containers:
        containers.delete(id, force=True)
    with contextlib.closing(sqlite3.connect(harbour.root / "state.db")) as database:
        database.execute("DELETE FROM containers WHERE id = ?", (id,))
        database.commit()

    harbour.start()

    rules = subprocess.run(
        ["nsenter", f"--net=/run/netns/{harbour.netns}", "nft", "list", "ruleset"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert not [port for port in ("18094", "18095", "18096") if port in rules]
    log = (harbour.run / "daemon.log").read_text()
    assert f"gave up the ports of container {id[:12]}, which is gone" in log
    assert "gave up the ports of service shop/job" in log


def test_a_project_may_have_a_name_that_is_longer_than_a_file_s(harbour: Harbour) -> None:
    name = "long" * 100
    kept = harbour.root / "projects" / f"{hashlib.sha256(name.encode()).hexdigest()}.json"
    document = {**stack(), "name": name}
    path = f"/v1/projects/{name}"
    *_, up = harbour.client.stream("POST", f"{path}/up", {"project": document}).events()
    assert up["ok"], up
    until(kept.exists, "the project is kept")
    *_, down = harbour.client.stream("POST", f"{path}/down", {"options": {"timeout": 0}}).events()
    assert down["ok"], down
    until(lambda: not kept.exists(), "it is not any more")
