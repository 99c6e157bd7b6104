"""Secrets of a repository reach the container, and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay
    from tests.e2e.gitops.conftest import Repository

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

PLAIN = "correct-horse-battery-staple"
LATER = "tr0ub4dor-and-three"
IN_MEMORY = ("decrypted", "secrets")
"""What is mounted in memory below the run-time directory."""


def traces(bay: Bay, word: str) -> list[str]:
    """The files of the instance that hold a word; what is in memory, and the base image's layers,
    left out."""
    done = subprocess.run(
        [
            *("grep", "-rlaF", "--devices=skip", "-e", word),
            *(f"--exclude-dir={name}" for name in ("layers", "blobs", "netns", *IN_MEMORY)),
            *(str(bay.root), str(bay.run_directory)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def test_a_secret_is_in_the_container_and_nowhere_else(
    bay: Bay,
    repository: Repository,
    follow: Callable[..., Any],
    stack: Callable[..., str],
    tmp_path: Path,
    ask: Callable[[str], str],
    eventually: Callable[..., None],
) -> None:
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    key = tmp_path / "age.key"
    key.write_text(str(identity))
    told = tmp_path / "told"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >> {told}\nenv >> {told}\n")
    hook.chmod(0o755)

    def encrypt(text: str) -> None:
        content = pyrage.encrypt(text.encode(), [identity.to_public()])
        (repository.work / "db.age").write_bytes(content)

    compose = stack("web") + "    secrets: [db]\nsecrets:\n  db: {file: db.age}\n"
    encrypt(PLAIN)
    repository.push({"compose.yaml": compose})
    source, added = follow(
        repository,
        decryption={"identityFile": str(key)},
        notify=[{"type": "command", "command": [str(hook)]}],
    )
    assert added.status == 0, str(added)
    name = source.name
    assert bay.ok("-p", name, "exec", "web", "cat", "/run/secrets/db") == PLAIN

    encrypt(LATER)
    repository.push({"note": "the secret has changed"})
    difference = source("diff")
    synced = source.sync("--format", "json")
    assert synced.status == 0, str(synced)
    assert bay.ok("-p", name, "exec", "web", "cat", "/run/secrets/db") == LATER
    bay.kill_daemon()
    eventually(lambda: source.status()["ready"], "the next daemon has looked at it")
    rolled = source("rollback")
    assert rolled.status == 0, str(rolled)
    assert bay.ok("-p", name, "exec", "web", "cat", "/run/secrets/db") == PLAIN

    paths = (
        "/v1/events",
        "/metrics",
        "/v1/openapi.json",
        f"/v1/gitops/sources/{name}",
        f"/v1/gitops/sources/{name}/history",
        f"/v1/projects/{name}/status",
        f"/v1/projects/{name}/revisions",
        f"/v1/projects/{name}/revisions/1",
        f"/v1/projects/{name}/diff",
        f"/v1/projects/{name}/operations",
        f"/v1/projects/{name}/containers",
    )
    answers = [ask(path) for path in paths]
    eventually(told.exists, "the command was told")
    said = [
        *answers,
        str(added),
        str(synced),
        str(rolled),
        str(difference),
        str(source("status")),
        json.dumps(source.status()),
        told.read_text(),
    ]
    for word in (PLAIN, LATER, str(identity)):
        assert not any(word in text for text in said), word
        assert traces(bay, word) == []
    for place in IN_MEMORY:
        words = ("stat", "-f", "-c", "%T", str(bay.run_directory / place))
        kind = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
        assert kind in ("tmpfs", "ramfs"), place
