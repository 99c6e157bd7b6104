"""`bay gitops`: pushes that are applied, taken back, planned, suspended and rolled back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay
    from tests.e2e.gitops.conftest import Repository

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

Follow = Callable[..., Any]
WriteStack = Callable[..., str]


def running(bay: Bay, project: str) -> dict[str, str]:
    """The services of a project that run, with their containers' ids."""
    lines = bay.ok("-p", project, "ps", "--format", "json").splitlines()
    return {record["Service"]: record["ID"] for record in map(json.loads, lines)}


def variables(bay: Bay, project: str, service: str) -> str:
    return bay.ok("-p", project, "exec", service, "env")


def test_a_push_is_applied_when_the_server_tells_of_it(
    bay: Bay,
    repository: Repository,
    follow: Follow,
    stack: WriteStack,
    webhook_port: int,
    secret_file: Path,
    ask: Callable[[str], str],
    eventually: Callable[..., None],
) -> None:
    first = repository.push({"compose.yaml": stack("web", "db", COLOUR="red")})
    source, added = follow(repository, webhook={"secretFile": str(secret_file)})
    assert added.status == 0, str(added)
    assert added.out == f"{source.name}: Applied main@{first[:12]}\n"
    assert "Container" in added.err
    assert running(bay, source.name).keys() == {"web", "db"}

    second = repository.push({"compose.yaml": stack("web", COLOUR="blue")})
    assert source.deliver(webhook_port) == 202
    eventually(lambda: source.applied() == second, "the pushed commit stands")
    assert running(bay, source.name).keys() == {"web"}
    assert "COLOUR=blue" in variables(bay, source.name, "web")

    assert source.deliver(webhook_port, secret="guessed") == 403
    assert source.deliver(webhook_port, ref="refs/heads/other") == 200
    source.name, name = "nobody", source.name
    assert source.deliver(webhook_port) == 404
    source.name = name
    history = json.loads(source("history", "--format", "json").out)
    assert [entry["commit"] for entry in history] == [first, second]
    assert [entry["outcome"] for entry in history] == ["applied", "applied"]
    assert f'bayplan_gitops_ready{{source="{source.name}"}} 1' in ask("/metrics")


def test_what_fails_is_taken_back_and_not_tried_again(
    bay: Bay, repository: Repository, follow: Follow, stack: WriteStack, unhealthy: str
) -> None:
    good = repository.push({"compose.yaml": stack("web", "db", COLOUR="red")})
    source, _ = follow(repository, healthGate={"timeout": "60s"})
    before = running(bay, source.name)

    broken = repository.push({"compose.yaml": "services: [\n"})
    result = source.sync()
    assert result.status == 1 and "compose.yaml:" in result.err, str(result)
    assert (source.applied(), source.status()["state"]) == (good, "Failed")
    assert running(bay, source.name) == before

    failing = repository.push({"compose.yaml": unhealthy})
    result = source.sync()
    assert result.status == 1 and "is unhealthy" in result.err, str(result)
    status = source.status()
    assert status["state"] == "RolledBack" and not status["ready"]
    assert status["last_attempted"]["commit"] == failing
    assert status["last_attempted"]["reason"] == "Unhealthy"
    assert status["last_applied"]["commit"] == good
    assert running(bay, source.name).keys() == {"web", "db"}
    assert "COLOUR=red" in variables(bay, source.name, "web")

    after = running(bay, source.name)
    assert source.sync().status == 1
    assert running(bay, source.name) == after
    outcomes = [e["outcome"] for e in json.loads(source("history", "--format", "json").out)]
    assert outcomes == ["applied", "failed", "rolled-back"]
    assert source.sync("--force").status == 1
    outcomes = [e["outcome"] for e in json.loads(source("history", "--format", "json").out)]
    assert outcomes == ["applied", "failed", "rolled-back", "rolled-back"]
    assert broken != failing

    mended = repository.push({"compose.yaml": stack("web", COLOUR="green")})
    assert source.sync().status == 0
    assert source.applied() == mended


def test_what_stumbles_after_the_gate_is_synced_and_not_ready(
    bay: Bay,
    repository: Repository,
    follow: Follow,
    stack: WriteStack,
    ask: Callable[[str], str],
    eventually: Callable[..., None],
) -> None:
    check = (
        '    healthcheck: {test: ["CMD", "test", "!", "-e", "/ill"], interval: 100ms, retries: 1}\n'
    )
    repository.push({"compose.yaml": stack("web") + check})
    source, added = follow(repository, healthGate={"timeout": "60s"})
    assert added.status == 0, str(added)
    assert source("status").status == 0
    bay.ok("-p", source.name, "exec", "web", "touch", "/ill")
    eventually(lambda: source.status()["health"] == "Degraded", "the status tells of it")
    shown = bay("gitops", "ls")
    assert all(word in shown.out for word in ("Synced", "Degraded", "web is Degraded")), str(shown)
    assert source("status").status == 2 and not source.status()["ready"]
    assert f'bayplan_gitops_health{{source="{source.name}",status="degraded"}} 1' in ask("/metrics")
    bay.ok("-p", source.name, "exec", "web", "rm", "/ill")
    eventually(lambda: source.status()["ready"], "it does well again")


def test_a_project_that_leaves_is_removed_but_never_everything(
    bay: Bay, repository: Repository, follow: Follow, stack: WriteStack
) -> None:
    one, two = f"{repository.name}-one", f"{repository.name}-two"
    repository.push(
        {
            "stacks/one.yaml": f"name: {one}\n" + stack("web"),
            "stacks/two.yaml": f"name: {two}\n" + stack("web"),
        }
    )
    source, added = follow(repository, paths=["stacks/*"])
    assert added.status == 0, str(added)
    assert running(bay, two)

    repository.push({"stacks/two.yaml": None})
    assert source.sync().status == 0
    assert [p["project"] for p in source.status()["projects"]] == [one]
    assert not running(bay, two) and running(bay, one)

    repository.push({"stacks/one.yaml": f"name: {one}\nservices: {{}}\n"})
    result = source.sync()
    assert result.status == 1 and "everything would be removed" in result.err, str(result)
    assert running(bay, one)


def test_a_stack_that_is_renamed_keeps_its_port_and_its_name(
    bay: Bay, repository: Repository, follow: Follow, stack: WriteStack
) -> None:
    old, new = f"{repository.name}-old", f"{repository.name}-new"
    port = "    ports: ['18080:80']\n    container_name: front\n"
    repository.push({"compose.yaml": f"name: {old}\n" + stack("web") + port})
    source, added = follow(repository)
    assert added.status == 0, str(added)
    repository.push({"compose.yaml": f"name: {new}\n" + stack("site") + port})
    result = source.sync()
    assert result.status == 0, str(result)
    assert not running(bay, old) and running(bay, new).keys() == {"site"}


def test_what_somebody_changes_by_hand_is_put_back(
    bay: Bay,
    repository: Repository,
    follow: Follow,
    stack: WriteStack,
    tmp_path: Path,
    eventually: Callable[..., None],
) -> None:
    repository.push({"compose.yaml": stack("web", "db", COLOUR="red")})
    source, _ = follow(repository)
    by_hand = tmp_path / "by-hand"
    by_hand.mkdir()
    (by_hand / "compose.yaml").write_text(stack("web", "db", COLOUR="pink"))
    bay.ok("-p", source.name, "up", "-d", cwd=by_hand)
    eventually(
        lambda: "COLOUR=red" in bay("-p", source.name, "exec", "web", "env").out,
        "the service is as the repository says",
    )
    bay("-p", source.name, "stop", "db")
    eventually(lambda: "db" in running(bay, source.name), "the service runs again")
    bay.ok("-p", source.name, "down")
    eventually(lambda: len(running(bay, source.name)) == 2, "the stack is up again")
    eventually(lambda: source.status()["ready"], "the source is ready")


def test_a_suspended_source_is_left_alone_and_a_rolled_back_one_stays(
    bay: Bay, repository: Repository, follow: Follow, stack: WriteStack
) -> None:
    first = repository.push({"compose.yaml": stack("web", COLOUR="red")})
    source, _ = follow(repository)
    second = repository.push({"compose.yaml": stack("web", COLOUR="blue")})
    assert source("suspend").status == 0
    result = source.sync()
    assert result.status == 1 and "is suspended" in result.err
    assert source.applied() == first
    assert source("resume").status == 0
    assert source.sync().status == 0
    assert source.applied() == second

    rolled = source("rollback")
    assert rolled.status == 0 and "until bay gitops resume" in rolled.out, str(rolled)
    assert source.applied() == first and source.status()["state"] == "Pinned"
    assert "COLOUR=red" in variables(bay, source.name, "web")
    result = source.sync()
    assert result.status == 1 and "was rolled back" in result.err, str(result)
    assert source("rollback", "deadbeef").status == 1
    assert source("resume").status == 0
    assert source.sync().status == 0
    assert source.applied() == second


def test_a_dry_source_tells_its_plan_and_applies_nothing(
    bay: Bay, repository: Repository, follow: Follow, stack: WriteStack, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat > {told}.new && mv {told}.new {told}\n")
    hook.chmod(0o755)
    repository.push({"compose.yaml": stack("web")})
    source, added = follow(
        repository, dryRun=True, notify=[{"type": "command", "command": [str(hook)]}]
    )
    assert added.status == 0 and "Planned" in added.out, str(added)
    assert not running(bay, source.name)
    difference = source("diff")
    assert difference.status == 2 and f"create container {source.name}-web-1" in difference.out


def test_sources_wait_for_those_that_they_depend_on(
    bay: Bay, repository: Repository, follow: Follow, stack: WriteStack, unhealthy: str
) -> None:
    repository.push({"base.yaml": unhealthy, "app.yaml": stack("web")})
    base, app = f"{repository.name}-base", f"{repository.name}-app"
    first, _ = follow(repository, name=base, paths=["base.yaml"], healthGate={})
    assert first.status()["state"] == "Failed"
    _, added = follow(repository, name=app, paths=["app.yaml"], dependsOn=[base])
    assert added.status == 1 and f"waits until {base} is ready" in added.err, str(added)
    cycle = first.add(
        {"url": repository.url, "paths": ["base.yaml"], "dependsOn": [app]}, "--no-wait"
    )
    assert cycle.status == 1 and "would wait for itself" in cycle.err, str(cycle)


def test_two_sources_cannot_have_one_project(
    bay: Bay, repository: Repository, follow: Follow, stack: WriteStack
) -> None:
    project = f"{repository.name}-shared"
    repository.push({"compose.yaml": f"name: {project}\n" + stack("web")})
    first, _ = follow(repository, name=f"{repository.name}-a")
    before = running(bay, project)
    second, added = follow(repository, name=f"{repository.name}-b")
    assert added.status == 1 and f"belongs to source {first.name}" in added.err, str(added)
    assert second.status()["last_attempted"]["reason"] == "Claimed"
    assert running(bay, project) == before
    assert first("rm", "--keep").status == 0
    assert running(bay, project) == before
    assert second.sync().status == 0
    assert second.status()["ready"]


def test_a_daemon_that_dies_in_the_middle_of_a_switch_leaves_what_the_next_one_ends(
    bay: Bay,
    repository: Repository,
    follow: Follow,
    stack: WriteStack,
    eventually: Callable[..., None],
) -> None:
    def tree(word: str) -> dict[str, str | None]:
        return {f"conf/{number % 50}/{number}": f"{word} {number}\n" for number in range(600)}

    compose = stack("web") + "    volumes: ['./conf:/conf:ro']\n"
    repository.push({"compose.yaml": compose, **tree("old")})
    source, added = follow(repository)
    assert added.status == 0, str(added)
    place = bay.root / "gitops" / source.name / "tree"
    files = tree("new")
    commit = repository.push(files)
    pid = bay.daemon_pid()
    assert source("sync", "--no-wait").status == 0
    # As soon as anything of it is there: which file comes first is not said.
    eventually(
        lambda: any((place / path).read_text().startswith("new ") for path in files),
        "the switch has begun",
    )
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: source.applied() == commit, "the next daemon applies it")
    assert {path: (place / path).read_text() for path in files} == files
    shown = bay.ok("-p", source.name, "exec", "web", "sh", "-c", "cat /conf/*/* | sort")
    assert sorted(shown.splitlines()) == sorted(f"new {number}" for number in range(600))


def test_files_that_containers_bind_follow_the_commits(
    bay: Bay, repository: Repository, follow: Follow, stack: WriteStack
) -> None:
    compose = stack("web", "db") + "    volumes: ['./conf:/conf:ro']\n"
    repository.push({"compose.yaml": compose, "conf/colour": "red\n"})
    source, _ = follow(repository)
    before = running(bay, source.name)
    assert bay.ok("-p", source.name, "exec", "db", "cat", "/conf/colour") == "red\n"
    repository.push({"conf/colour": "blue\n"})
    assert source.sync().status == 0
    assert bay.ok("-p", source.name, "exec", "db", "cat", "/conf/colour") == "blue\n"
    after = running(bay, source.name)
    assert after["web"] == before["web"] and after["db"] != before["db"]
