"""The dependency graph in every form."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from specs import graph
from tests.unit.specs.conftest import Load

SPEC = """
services:
  web:
    image: x
    depends_on:
      api: {condition: service_healthy}
      cache: {condition: service_started, required: false}
  worker: {image: x, depends_on: [api]}
  api: {image: x, depends_on: [db]}
  db: {image: x}
  cache: {image: x}
  alone: {image: x}
"""


def test_the_tree_starts_at_what_nothing_waits_for(load: Load) -> None:
    assert graph.render(load(SPEC).project) == (
        "alone\n"
        "web\n"
        "├─ api (healthy)\n"
        "│  └─ db (started)\n"
        "└─ cache (started, optional)\n"
        "worker\n"
        "└─ api (started) …\n"
    )


def test_mermaid_and_dot_name_every_edge_with_its_condition(load: Load) -> None:
    project = load(SPEC).project
    assert '"web" -> "api" [label="healthy"];' in graph.render(project, "dot")
    mermaid = graph.render(project, "mermaid")
    assert mermaid.startswith("flowchart LR\n")
    assert "-.->|started, optional|" in mermaid


def test_json_lists_services_and_edges(load: Load) -> None:
    document = json.loads(graph.render(load(SPEC).project, "json"))
    assert document["services"] == ["alone", "api", "cache", "db", "web", "worker"]
    assert {"service": "api", "target": "db", "condition": "service_started", "required": True} in (
        document["edges"]
    )


def test_svg_is_well_formed_and_has_a_box_for_each_service(load: Load) -> None:
    root = ElementTree.fromstring(graph.render(load(SPEC).project, "svg"))
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 6
    assert len(root.findall("{http://www.w3.org/2000/svg}line")) == 4


def test_another_form_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="is not one of tree"):
        graph.render(load(SPEC).project, "png")
