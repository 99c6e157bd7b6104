"""Commits at random, with the daemon killed between and meanwhile: what stands is always the last
healthy one, and nothing else is touched.

BAYPLAN_GITOPS_COMMITS says how many commits (12), BAYPLAN_GITOPS_SEED which ones.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay
    from tests.e2e.gitops.conftest import Repository

COMMITS = int(os.environ.get("BAYPLAN_GITOPS_COMMITS", "12"))
SEED = int(os.environ.get("BAYPLAN_GITOPS_SEED", "20"))

pytestmark = [pytest.mark.root, pytest.mark.timeout(120 + 20 * COMMITS)]

Stacks = dict[str, dict[str, int]]
"""Projects with their services, each with the value of its variable."""


class Author:
    """Makes commits: `good` is what the last healthy one says."""

    def __init__(self, repository: Repository, rng: random.Random) -> None:
        self.repository = repository
        self.prefix = repository.name
        self.rng = rng
        self.counter = 0
        self.good: Stacks = {self._name(): {"web": 0}}
        self.files: set[str] = set()

    def _name(self) -> str:
        self.counter += 1
        return f"{self.prefix}-p{self.counter}"

    def push(self, stacks: Stacks, spoil: dict[str, str] | None = None) -> str:
        """Push these stacks, some of their files replaced by others."""
        texts = {
            f"stacks/{project}.yaml": f"name: {project}\n{self._text(services)}"
            for project, services in stacks.items()
        }
        texts |= spoil or {}
        changes: dict[str, str | None] = {path: None for path in self.files - texts.keys()}
        self.files = set(texts)
        return self.repository.push({**texts, **changes})

    def _text(self, services: dict[str, int]) -> str:
        lines = ["services:"]
        for service, value in services.items():
            lines += [
                f"  {service}:",
                "    image: debian:bookworm",
                "    init: true",
                "    command: sleep 10000",
                "    stop_grace_period: 0s",
                f"    environment: {{VALUE: '{value}'}}",
                "    healthcheck: {test: [CMD, 'true'], interval: 100ms}",
            ]
        return "\n".join(lines) + "\n"

    def commit(self) -> tuple[str, bool]:
        """The next commit, and whether it is a healthy one."""
        stacks = {project: dict(services) for project, services in self.good.items()}
        project = self.rng.choice(sorted(stacks))
        kind = self.rng.choice(
            ("change", "change", "service", "add", "rename", "remove", "broken", "failing", "ill")
        )
        self.counter += 1
        path = f"stacks/{project}.yaml"
        match kind:
            case "broken":
                return self.push(stacks, {path: f"name: {project}\nservices: ["}), False
            case "failing":
                text = f"name: {project}\n" + self._text({"web": 1, "extra": 2}).replace(
                    "sleep 10000", "sh -c 'exit 3'", 1
                )
                return self.push(stacks, {path: text}), False
            case "ill":
                text = f"name: {project}\n" + self._text({"other": 1, "web": 2})
                text = text.replace("'true']", "'false'], retries: 1")
                more = {
                    f"stacks/{self._name()}.yaml": f"name: {self._name()}\n"
                    + text[text.index("services") :]
                }
                return self.push(stacks, {path: text, **more}), False
            case "service":
                services = stacks[project]
                if "db" in services:
                    del services["db"]
                else:
                    services["db"] = self.counter
            case "add" if len(stacks) < 3:
                stacks[self._name()] = {"web": self.counter}
            case "rename":
                stacks[self._name()] = stacks.pop(project)
            case "remove" if len(stacks) > 1:
                del stacks[project]
            case _:
                stacks[project]["web"] = self.counter
        self.good = stacks
        return self.push(stacks), True


def world(bay: Bay, prefix: str) -> dict[str, dict[str, int]]:
    """What runs of the projects whose names begin so, with each service's value."""
    found: Stacks = {}
    for project in json.loads(bay.ok("ls", "-a", "--format", "json")):
        if not project["Name"].startswith(prefix):
            continue
        lines = bay.ok("-p", project["Name"], "ps", "-a", "--format", "json").splitlines()
        for container in map(json.loads, lines):
            assert container["State"] == "running", container
            variables = bay.ok("-p", project["Name"], "exec", container["Service"], "env")
            value = next(v for v in variables.splitlines() if v.startswith("VALUE="))
            services = found.setdefault(project["Name"], {})
            services[container["Service"]] = int(value.partition("=")[2])
    return found


def test_whatever_is_pushed_and_whenever_the_daemon_dies_the_last_healthy_commit_stands(
    bay: Bay,
    repository: Repository,
    follow: Callable[..., Any],
    stack: Callable[..., str],
    tmp_path: Path,
    eventually: Callable[..., None],
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "compose.yaml").write_text(stack("web", "db"))
    bay.ok("up", "-d", cwd=foreign)
    untouched = {name: c["ID"] for name, c in bay.containers(foreign).items()}
    rng = random.Random(SEED)
    author = Author(repository, rng)
    author.push(author.good)
    source, added = follow(repository, paths=["stacks/*"], healthGate={"timeout": "60s"})
    assert added.status == 0, str(added)
    standing = source.applied()

    for number in range(COMMITS):
        commit, good = author.commit()
        said = f"seed {SEED}, commit {number} ({commit[:12]}, {'good' if good else 'bad'})"
        if number % 2:
            assert source("sync", "--no-wait").status == 0
            pid = bay.daemon_pid()
            death = threading.Timer(rng.uniform(0.0, 1.6), os.kill, (pid, 9))
            death.start()
            death.join()
        else:
            source.sync()

        def at_rest(commit: str = commit) -> bool:
            shown = bay("gitops", "status", source.name, "--format", "json")
            if shown.status not in (0, 2):
                return False  # the daemon is just being started
            status = json.loads(shown.out)
            last = status["last_attempted"]
            return (
                last["commit"] == commit
                and last["outcome"] in ("applied", "failed", "rolled-back")
                and status["settled"]
                and not status["doing"]
            )

        eventually(at_rest, f"{said} has come to a rest", 90)
        standing = commit if good else standing
        assert source.applied() == standing, said
        assert world(bay, author.prefix) == author.good, said
        owned = {entry["project"] for entry in source.status()["projects"]}
        assert owned == author.good.keys(), said
    assert {name: c["ID"] for name, c in bay.containers(foreign).items()} == untouched
    bay.ok("down", cwd=foreign)
