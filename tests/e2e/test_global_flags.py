"""Global flags of Compose, and its variables, through the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_STACK = """
services:
  web: {image: debian:bookworm, init: true, command: sleep 1000, stop_grace_period: 0s}
  old: {image: debian:bookworm, init: true, command: sleep 1000, stop_grace_period: 0s}
networks: {spare: }
volumes: {shelf: }
"""


def states(bay: Bay, directory: Path) -> dict[str, tuple[str, str]]:
    found = bay.containers(directory)
    return {name: (record["ID"], record["State"]) for name, record in found.items()}


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(_STACK)
    for command in (("up", "-d"), ("create",), ("up", "--dry-run")):
        told = bay("--dry-run", *command, cwd=directory)
        assert told.status == 2 and "create" in told.out.lower(), str(told)
    assert not bay.containers(directory)

    bay.ok("--parallel", "1", "up", "-d", cwd=directory)
    before = states(bay, directory)
    for command in (
        ("down", "-v"), ("stop",), ("restart",), ("kill",), ("rm", "-s"), ("scale", "web=3"),
    ):  # fmt: skip
        told = bay(*command, "--dry-run", cwd=directory)
        assert told.status == 2 and f"{directory.name}-web-" in told.out, str(told)
    assert bay("start", "--dry-run", cwd=directory).status == 0
    refused = bay("--dry-run", "run", "web", "true", cwd=directory)
    assert refused.status == 1 and "run has no --dry-run" in refused.err
    assert states(bay, directory) == before

    assert f"{directory.name}_spare" not in bay.ok("network", "ls")
    bay.ok("--all-resources", "up", "-d", cwd=directory)
    assert f"{directory.name}_spare" in bay.ok("network", "ls")
    assert f"{directory.name}_shelf" in bay.ok("volumes", "-q", cwd=directory)


def test_orphans_are_treated_as_the_env_file_says(bay: Bay, project: Callable[..., Path]) -> None:
    directory = project(_STACK)
    bay.ok("up", "-d", cwd=directory)
    kept = "\n".join(line for line in _STACK.splitlines() if "old:" not in line)
    (directory / "compose.yaml").write_text(kept)
    orphan = f"{directory.name}-old-1"

    assert "orphans" in bay("up", "-d", cwd=directory).err
    (directory / ".env").write_text("COMPOSE_IGNORE_ORPHANS=true\nCOMPOSE_STATUS_STDOUT=1\n")
    ignored = bay("up", "-d", "--force-recreate", cwd=directory)
    assert "orphans" not in ignored.err and orphan in bay.containers(directory)
    assert "Created" in ignored.out
    assert bay("up", "-d", "--remove-orphans", cwd=directory).status == 1
    (directory / ".env").write_text("COMPOSE_REMOVE_ORPHANS=true\n")
    bay.ok("up", "-d", cwd=directory)
    assert orphan not in bay.containers(directory)
