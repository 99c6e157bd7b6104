"""Words and numbers as Docker and Compose print them."""

from typing import Any

import pytest

from orchestrator.cli import containers, output
from orchestrator.cli.commands.images import split


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (125, "2 minutes"),
        (3600, "About an hour"),
        (3 * 3600, "3 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (100 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert output.duration(seconds) == words


def test_ages_are_counted_from_rfc_3339() -> None:
    assert output.age("2026-01-02T03:04:05.123456789Z", now=1767323045 + 181) == "3 minutes"
    assert output.age("2026-01-02T03:04:05+00:00", now=1767323045 + 61) == "About a minute"
    assert output.age("0001-01-01T00:00:00Z") == output.age(None) == ""


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0B"), (999, "999B"), (1500, "1.5kB"), (113_000_000, "113MB")]
)
def test_sizes(count: int, words: str) -> None:
    assert output.size(count) == words


def test_columns_are_as_wide_as_needed(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME", "N"), [("web", "1"), ("a-long-name", "")])

    assert capsys.readouterr().out == "NAME          N\nweb           1\na-long-name\n"


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("debian:bookworm", ("debian", "bookworm")),
        ("debian", ("debian", "latest")),
        ("host:5000/app", ("host:5000/app", "latest")),
        ("host:5000/app:1@sha256:abc", ("host:5000/app", "1")),
        ("sha256:abc", ("<none>", "<none>")),
    ],
)
def test_references_split_into_repository_and_tag(reference: str, parts: tuple[str, str]) -> None:
    assert split(reference) == parts


def _container(**changes: Any) -> dict[str, Any]:
    return {
        "id": "0123456789abcdef",
        "name": "shop-web-1",
        "service": "web",
        "image": "shop-web",
        "command": ["python3", "app.py", "--port", "80"],
        "state": "running",
        "health": None,
        "exit_code": None,
        "created_at": None,
        "started_at": None,
        "finished_at": None,
        "ports": [
            {"host_ip": "", "host_port": 8080, "container_port": 80, "protocol": "tcp"},
        ],
        "labels": {},
        "networks": {"shop_default": "10.0.0.2"},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Up"),
        ({"health": "starting"}, "Up (health: starting)"),
        ({"health": "healthy"}, "Up (healthy)"),
        ({"state": "paused"}, "Up (Paused)"),
        ({"state": "exited", "exit_code": 3}, "Exited (3)"),
        ({"state": "restarting", "exit_code": 1}, "Restarting (1)"),
        ({"state": "created"}, "Created"),
    ],
)
def test_states_in_the_words_of_ps(changes: dict[str, Any], words: str) -> None:
    assert containers.status_text(_container(**changes)) == words


def test_a_row_of_ps() -> None:
    assert containers.row(_container()) == (
        "shop-web-1",
        "shop-web",
        '"python3 app.py --po…"',
        "web",
        "",
        "Up",
        "0.0.0.0:8080->80/tcp",
    )


def test_the_json_of_ps_has_the_keys_of_compose() -> None:
    record = containers.record("shop", _container(state="exited", exit_code=2))

    assert record["ExitCode"] == 2
    assert record["Publishers"] == [
        {"URL": "0.0.0.0", "TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp"}
    ]
    assert record["Project"] == "shop"
