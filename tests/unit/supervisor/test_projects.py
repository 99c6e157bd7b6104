"""Which project a request means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.engine.store import Store
from orchestrator.supervisor.errors import BadRequest, NoSuchProject
from orchestrator.supervisor.projects import record_project, resolve_project
from specs.project import Project

INPUTS = {"directory": "/srv", "files": {"/srv/compose.yaml": "1"}, "variables": {}}


def document(image: str = "app") -> dict[str, Any]:
    return {
        "version": 1,
        "name": "shop",
        "working_dir": "/srv",
        "config_files": ["/srv/compose.yaml"],
        "services": {"web": {"image": image}},
    }


def test_what_a_request_carries_is_remembered_by_its_inputs(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        sent = resolve_project(store, "shop", document(), INPUTS)
        assert resolve_project(store, "shop", None, INPUTS) == sent
        with pytest.raises(NoSuchProject):
            resolve_project(store, "shop", None, {**INPUTS, "files": {"/srv/compose.yaml": "2"}})


def test_without_inputs_it_is_the_one_that_was_applied(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        with pytest.raises(NoSuchProject):
            resolve_project(store, "shop", None, None)
        applied = Project.from_canonical(document())
        assert record_project(store, applied) == 1
        resolve_project(store, "shop", document("other"), INPUTS)
        assert resolve_project(store, "shop", None, None) == applied


def test_a_body_for_another_project_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path) as store, pytest.raises(BadRequest, match="its body holds shop"):
        resolve_project(store, "other", document(), None)
