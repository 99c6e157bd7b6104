"""What people complain of most in this field, theme by theme, on one instance with a small image.

The themes are 22, and each test's name says which it belongs to and what does not happen here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.client.http import Client
from tests.integration.supervisor.harbour import BUSYBOX, make_image

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(scope="session")
def bay(new_instance: Callable[..., Bay], tmp_path_factory: pytest.TempPathFactory) -> Bay:
    """One instance for all themes, with the image `busybox`."""
    if not BUSYBOX.exists():
        pytest.skip(f"{BUSYBOX} is not installed (Debian: busybox-static)")
    images = tmp_path_factory.mktemp("images")
    make_image(images)
    return new_instance(images)


@pytest.fixture
def api(bay: Bay) -> Client:
    """The daemon's API."""
    return Client(os.fspath(bay.run_directory / "bayplan.sock"))


@pytest.fixture
def history(api: Client) -> Callable[[str], list[dict[str, Any]]]:
    """The plans of a project and their steps that have been carried out, as events."""

    def read(project: str) -> list[dict[str, Any]]:
        with api.stream("GET", "/v1/events", project=project, since="0") as stream:
            return [event for event in stream.events() if event["type"] in ("plan", "step")]

    return read


@pytest.fixture
def planned(bay: Bay) -> Callable[..., list[str]]:
    """What `bay plan` would do in a directory, one text a step; its exit status must agree."""

    def plan(directory: Path, *args: str, **options: Any) -> list[str]:
        result = bay("plan", "--format", "json", *args, cwd=directory, **options)
        assert result.status in (0, 2), str(result)
        steps = [str(step["text"]) for step in json.loads(result.out)["steps"]]
        assert result.status == (2 if steps else 0), str(result)
        return steps

    return plan


@pytest.fixture
def ids(bay: Bay) -> Callable[[Path], dict[str, str]]:
    """The ids of a project's containers, by service and number: `web-1`."""

    def look(directory: Path) -> dict[str, str]:
        found = bay.containers(directory).values()
        return {record["Name"].removeprefix(f"{directory.name}-"): record["ID"] for record in found}

    return look
