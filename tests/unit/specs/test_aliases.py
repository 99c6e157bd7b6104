"""Extensions that became attributes."""

from __future__ import annotations

import pytest

from specs.errors import SpecError
from specs.project import Service
from tests.unit.specs.conftest import Load

RULES = "watch: [{action: sync, path: ./src, target: /srv, x-initialSync: true}]"


def services(load: Load, *files: str) -> dict[str, Service]:
    names = ("compose.yaml", "compose.override.yaml")
    return dict(load(dict(zip(names, files, strict=False))).project.services)


def watched(service: Service) -> list[tuple[str, bool]]:
    """Each rule's action, and whether all files are brought first."""
    assert service.develop is not None
    return [(rule.action, rule.initial_sync) for rule in service.develop.watch]


def test_the_old_names_stand_for_the_new_ones(load: Load) -> None:
    found = services(load, f"services: {{web: {{image: a, x-develop: {{{RULES}}}}}}}")
    assert watched(found["web"]) == [("sync", True)]
    assert "x-develop" not in found["web"].extensions


def test_a_new_name_is_laid_over_the_old_one(load: Load) -> None:
    rule = "{action: sync, path: ./src, target: /srv, initial_sync: false, x-initialSync: true}"
    text = (
        f"services: {{web: {{image: a, develop: {{watch: [{rule}]}}, "
        "x-develop: {watch: [{action: rebuild, path: ./other}]}}, "
        f"api: {{image: a, develop: null, x-develop: {{{RULES}}}}}}}"
    )
    found = services(load, text)
    assert watched(found["web"]) == [("rebuild", False), ("sync", False)]
    assert watched(found["api"]) == [("sync", True)]


def test_they_are_renamed_file_by_file_and_wherever_they_are_used_again(load: Load) -> None:
    text = (
        f"x-shared: &shared\n  x-develop: {{{RULES}}}\n"
        "services:\n"
        "  a: {<<: *shared, image: a}\n"
        "  b: {<<: *shared, image: a}\n"
        "  c: {extends: a, command: c}\n"
    )
    over = "services: {b: {x-develop: {watch: [{action: rebuild, path: ./more}]}}}"
    found = services(load, text, over)
    assert watched(found["a"]) == watched(found["c"]) == [("sync", True)]
    assert watched(found["b"]) == [("sync", True), ("rebuild", False)]


def test_a_fault_is_told_by_the_new_name(load: Load) -> None:
    with pytest.raises(SpecError, match=r"services\.web\.develop"):
        services(load, "services: {web: {image: a, x-develop: no}}")


def test_elsewhere_they_are_extensions_as_others(load: Load) -> None:
    text = "x-develop: {watch: 1}\nservices: {web: {image: a, x-initialSync: true}}"
    assert services(load, text)["web"].extensions["x-initialSync"] is True
