"""The small examples, used as their READMEs say. The guest book has tests of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.supervisor.visitors import visitors

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[2] / "examples"
_ROLLING_PORT, _HELLO_PORT = 39081, 39082


@pytest.fixture
def rolling(bay: Bay, tmp_path: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Brings a version up; the result is the exit status and what was said."""
    directory = tmp_path / "rolling"
    shutil.copytree(EXAMPLES / "rolling", directory)

    def up(version: str) -> tuple[int, str]:
        environ = {"VERSION": version, "ROLLING_PORT": str(_ROLLING_PORT)}
        ended = bay("up", "-d", "--wait", cwd=directory, env=environ)
        return ended.status, str(ended)

    yield up
    bay.ok("-p", "rolling", "down", "-t", "0")


def test_rolling_loses_no_request_and_takes_back_what_is_broken(
    bay: Bay, rolling: Callable[..., tuple[int, str]]
) -> None:
    status, said = rolling("one")
    assert status == 0, said
    with visitors(bay.host.netns, _ROLLING_PORT) as told:
        status, said = rolling("two")
        assert status == 0, said
        status, said = rolling("broken")
        assert status == 1 and "rolled back" in said, said
    assert told["lost"] == []
    assert set(told["seen"]) == {"one", "two"}

    status, said = rolling("three")
    assert status == 0, said
    history = bay.ok("-p", "rolling", "rollout", "history", "web", "--format", "json")
    states = [record["state"] for record in json.loads(history)]
    assert states == ["completed", "rolled_back", "completed"]
    bay.ok("-p", "rolling", "rollout", "undo", "web")
    version = bay.ok("-p", "rolling", "exec", "-T", "web", "printenv", "VERSION")
    assert version == "two\n"


_FETCH = """
import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
"""


def _git(directory: Path, *words: str) -> None:
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    subprocess.run(["git", *who, *words], cwd=directory, check=True, timeout=60)


@pytest.fixture
def hello(bay: Bay, tmp_path: Path) -> Iterator[Path]:
    """The repository of the example, and the source added."""
    repository = tmp_path / "hello"
    shutil.copytree(EXAMPLES / "gitops" / "stack", repository)
    compose = repository / "compose.yaml"
    compose.write_text(
        compose.read_text().replace("HELLO_PORT:-8082", f"HELLO_PORT:-{_HELLO_PORT}")
    )
    _git(repository, "init", "-q", "-b", "main")
    _git(repository, "add", "-A")
    _git(repository, "commit", "-qm", "Say hello")
    source = tmp_path / "source.yaml"
    text = (EXAMPLES / "gitops" / "source.yaml").read_text()
    assert "file:///srv/hello" in text
    source.write_text(text.replace("file:///srv/hello", f"file://{repository}"))
    added = bay("gitops", "add", str(source))
    assert added.status == 0 and "hello: Applied main@" in added.out, str(added)
    yield repository
    bay.ok("gitops", "rm", "hello")


def test_gitops_follows_commits_and_goes_back_from_a_broken_one(
    bay: Bay, hello: Path, eventually: Callable[..., None]
) -> None:
    def shown() -> str:
        url = f"http://127.0.0.1:{_HELLO_PORT}"
        return bay.host.output(sys.executable, "-I", "-c", _FETCH, url)

    page = hello / "page.html"
    assert shown() == page.read_text()

    page.write_text(more := page.read_text() + "<p>And more.\n")
    _git(hello, "commit", "-qam", "Say more")
    bay.ok("gitops", "sync", "hello")
    assert shown() == more

    page.write_text("<p>Nothing else.\n")
    _git(hello, "commit", "-qam", "Break it")
    broken = bay("gitops", "sync", "hello")
    assert broken.status != 0, str(broken)
    assert shown() == more
    assert "RolledBack" in bay("gitops", "status", "hello").out

    bay.ok("-p", "hello", "rm", "-f", "-s", "web")
    eventually(
        lambda: "running" in bay("-p", "hello", "ps", "--format", "{{.State}}").out,
        "the container that was removed is back",
        60,
    )
    _git(hello, "revert", "--no-edit", "HEAD")
    bay.ok("gitops", "sync", "hello")
    assert shown() == more
