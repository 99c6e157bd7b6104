"""The guest book, from an empty host to an empty host."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay, Templates

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

_PORT = 8099
_BOOK = f"http://127.0.0.1:{_PORT}/api/entries"
_SERVICES = ("web", "store", "worker")


@pytest.fixture(scope="module")
def bay(new_instance: Callable[..., Bay], templates: Templates) -> Bay:
    return new_instance(templates.guestbook())


@pytest.fixture
def book(bay: Bay, tmp_path: Path) -> Iterator[Path]:
    """The guest book in a directory of its own, up and healthy."""
    source = Path(__file__).parents[2] / "examples" / "guestbook"
    directory = tmp_path / "guestbook"
    shutil.copytree(source, directory)
    (directory / ".env").write_text(f"GUESTBOOK_PORT={_PORT}\n")
    bay.ok("up", "-d", "--wait", cwd=directory)
    yield directory
    bay.ok("-p", "guestbook", "down", "-v")


def _ids(bay: Bay, book: Path) -> dict[str, str]:
    return {record["Service"]: record["ID"] for record in bay.containers(book).values()}


def _sign(bay: Bay, message: str) -> None:
    entry = bay.host.fetch(_BOOK, {"name": "Ada", "message": message})
    assert entry["message"] == message


def _read(bay: Bay) -> dict[str, Any]:
    answer = bay.host.fetch(_BOOK)
    assert isinstance(answer, dict)
    return answer


def test_an_entry_is_stored_and_counted(
    bay: Bay, book: Path, eventually: Callable[..., None]
) -> None:
    states = {name: record["State"] for name, record in bay.containers(book).items()}
    assert states == {f"guestbook-{service}-1": "running" for service in _SERVICES}

    _sign(bay, "hello")

    assert [entry["message"] for entry in _read(bay)["entries"]] == ["hello"]
    eventually(lambda: _read(bay)["counted"] == 1, "the worker has counted the entry")


def test_entries_survive_down_and_up(bay: Bay, book: Path) -> None:
    _sign(bay, "still here")

    bay.ok("down", cwd=book)
    assert bay.containers(book) == {}
    assert bay.ok("volume", "ls", "-q").split() == ["guestbook_data"]
    bay.ok("up", "-d", "--wait", cwd=book)

    assert [entry["message"] for entry in _read(bay)["entries"]] == ["still here"]


def test_a_second_up_does_nothing_and_says_so(bay: Bay, book: Path) -> None:
    before = _ids(bay, book)

    assert bay("plan", cwd=book).status == 0
    again = bay("up", "-d", cwd=book)

    assert again.status == 0
    assert "nothing to do" in again.err
    assert _ids(bay, book) == before


def test_a_change_of_one_service_recreates_that_one_only(bay: Bay, book: Path) -> None:
    before = _ids(bay, book)
    title = {"GUESTBOOK_TITLE": "Log book"}

    plan = bay("plan", "--format", "json", cwd=book, env=title)
    bay.ok("up", "-d", "--wait", cwd=book, env=title)

    after = _ids(bay, book)
    assert plan.status == 2
    assert not json.loads(plan.out)["empty"]
    assert {service for service in _SERVICES if before[service] != after[service]} == {"web"}


def test_exec_passes_input_output_and_status_on(bay: Bay, book: Path) -> None:
    assert bay.ok("exec", "store", "redis-cli", "ping", cwd=book) == "PONG\n"
    shell = ("exec", "-T", "-e", "A=b c", "-w", "/tmp", "store", "sh", "-c")
    assert bay.ok(*shell, 'cat; echo "$A" $(pwd)', cwd=book, stdin="in\n") == "in\nb c /tmp\n"
    failed = bay(*shell, "echo oh >&2; exit 42", cwd=book)
    assert (failed.status, failed.err) == (42, "oh\n")
    assert bay("exec", "store", "no-such-command", cwd=book).status == 127
    assert bay("exec", "nothing", "true", cwd=book).status == 1


def test_logs_carry_prefixes_and_can_be_cut(bay: Bay, book: Path) -> None:
    bay.host.fetch(_BOOK)

    everything = bay.ok("logs", "web", cwd=book)
    last = bay("logs", "-n", "1", "--no-log-prefix", "web", cwd=book)

    assert "web-1  | the guest book is open on port 8000\n" in everything
    # Requests are logged to standard error, and stay there.
    assert last.out == ""
    assert last.err.endswith('"GET /api/entries HTTP/1.1" 200 -\n')
    assert last.err.count("\n") == 1
    assert {line.split()[0] for line in bay.ok("logs", cwd=book).splitlines()} >= {
        "web-1",
        "worker-1",
    }


def test_images_networks_and_projects_are_listed(bay: Bay, book: Path) -> None:
    images = json.loads(bay.ok("images", "--format", "json", cwd=book))
    assert {image["Repository"] for image in images} == {f"guestbook-{name}" for name in _SERVICES}
    (network,) = map(json.loads, bay.ok("network", "ls", "--format", "json").splitlines())
    assert network["Name"] == "guestbook_default"
    (listed,) = json.loads(bay.ok("ls", "--format", "json"))
    assert (listed["Name"], listed["ConfigFiles"]) == ("guestbook", str(book / "compose.yaml"))


def test_config_shows_what_is_meant(bay: Bay, book: Path) -> None:
    shown = json.loads(bay.ok("config", "--format", "json", cwd=book))

    assert shown["services"]["web"]["ports"][0]["published"] == str(_PORT)
    assert bay.ok("config", "--services", cwd=book).split() == sorted(_SERVICES)


def test_nothing_is_left_behind(
    new_instance: Callable[..., Bay], templates: Templates, tmp_path: Path
) -> None:
    bay = new_instance(templates.guestbook())
    source = Path(__file__).parents[2] / "examples" / "guestbook"
    settings = {"GUESTBOOK_PORT": "8098"}
    bay.ok("up", "-d", "--wait", cwd=source, env=settings)
    assert bay.leftovers().keys() >= {"links", "tables", "cgroups", "processes", "namespaces"}

    bay.ok("down", "-v", cwd=source, env=settings)
    bay.ok("daemon", "stop")

    assert bay.leftovers() == {}
