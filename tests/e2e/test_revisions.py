"""`bay status`, `history`, `diff` and `rollout`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


def stack(colour: str) -> str:
    return (
        "services:\n"
        "  web:\n"
        "    image: debian:bookworm\n"
        "    init: true\n"
        "    command: sleep 1000\n"
        f"    environment: {{COLOUR: {colour}}}\n"
        "    stop_grace_period: 0s\n"
        "    deploy: {update_config: {order: start-first, monitor: 200ms}}\n"
    )


def test_revisions_are_listed_and_compared_and_a_rollout_can_be_undone(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(stack("red"))
    bay.ok("up", "-d", cwd=directory)
    assert "Synced" in bay.ok("status", cwd=directory)
    (directory / "compose.yaml").write_text(stack("blue"))
    bay.ok("up", "-d", cwd=directory)

    revisions = json.loads(bay.ok("history", "--format", "json", cwd=directory))
    assert [revision["number"] for revision in revisions] == [1, 2]
    assert "REVISION" in bay.ok("history", cwd=directory)
    difference = bay.ok("diff", cwd=directory)
    assert '"red" -> "blue"' in difference and "COLOUR" in difference
    assert bay.ok("diff", "--from", "2", "--to", "1", cwd=directory) != difference
    (rollout,) = json.loads(bay.ok("rollout", "status", "--format", "json", cwd=directory))
    assert rollout["service"] == "web" and rollout["state"] == "completed"
    assert "web completed" in bay.ok("rollout", "status", "web", cwd=directory)

    bay.ok("rollout", "undo", "web", cwd=directory)
    assert bay.ok("exec", "web", "sh", "-c", "echo $COLOUR", cwd=directory) == "red\n"
    assert len(bay.ok("rollout", "history", cwd=directory).splitlines()) >= 3
    assert bay("rollout", "pause", "web", cwd=directory).status == 1
    assert bay("rollout", "resume", "nobody", cwd=directory).status == 1


def test_status_tells_by_its_exit_status_that_something_is_wrong(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project("services:\n  job: {image: debian:bookworm, command: sh -c 'exit 3'}\n")
    bay.ok("up", "-d", cwd=directory)
    bay("wait", "job", cwd=directory)

    result = bay("status", cwd=directory)

    assert result.status == 2, str(result)
    assert "job" in result.out
