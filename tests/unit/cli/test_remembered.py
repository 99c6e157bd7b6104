"""A load is recognised as long as nothing that it read has changed."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import remembered
from orchestrator.client.http import Client


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "compose.yaml").write_bytes(b"services: {}\n")
    return {
        "options": {"files": []},
        "files": {
            str(tmp_path / "compose.yaml"): _digest(b"services: {}\n"),
            str(tmp_path / "compose.override.yaml"): None,
        },
        "variables": {"TAG": _digest(b"1.2"), "UNSET": None},
    }


def test_nothing_changed(inputs: dict[str, Any]) -> None:
    assert remembered.unchanged(inputs, {"TAG": "1.2", "OTHER": "x"})


def test_a_changed_file_a_new_file_and_a_lost_file_are_noticed(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    environ = {"TAG": "1.2"}
    override = tmp_path / "compose.override.yaml"

    override.touch()
    assert not remembered.unchanged(inputs, environ)
    override.unlink()
    assert remembered.unchanged(inputs, environ)
    (tmp_path / "compose.yaml").write_text("services: {a: {}}\n")
    assert not remembered.unchanged(inputs, environ)
    (tmp_path / "compose.yaml").unlink()
    assert not remembered.unchanged(inputs, environ)


@pytest.mark.parametrize("environ", [{}, {"TAG": "1.3"}, {"TAG": "1.2", "UNSET": ""}])
def test_changed_variables_are_noticed(inputs: dict[str, Any], environ: dict[str, str]) -> None:
    assert not remembered.unchanged(inputs, environ)


class _Daemon(Client):
    """Knows loads, and nothing else."""

    def __init__(self, loads: list[dict[str, Any]]) -> None:
        super().__init__("")
        self._loads = loads

    def get(self, path: str, **query: str | int | tuple[str, ...] | None) -> Any:
        assert (path, query) == ("/v1/loads", {"directory": "/srv"})
        return self._loads


def test_only_a_load_with_the_same_options_is_meant(inputs: dict[str, Any]) -> None:
    other = {"project": "other", "inputs": {**inputs, "options": {"files": ["b.yaml"]}}}
    one_service = {"project": "ours", "inputs": {**inputs, "services": ["web"]}}
    ours = {"project": "ours", "inputs": {**inputs, "services": []}}
    daemon = _Daemon([other, one_service, ours])

    def find(services: tuple[str, ...] | None) -> dict[str, Any] | None:
        return remembered.find(
            daemon,
            directory="/srv",
            options={"files": []},
            services=services,
            environ={"TAG": "1.2"},
        )

    assert find(()) == ours
    assert find(("web",)) == one_service
    assert find(("store",)) is None
    assert find(None) == one_service
