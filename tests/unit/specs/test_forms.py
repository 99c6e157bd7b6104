"""Canonical form, digests, differences, and what `config` prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specs import canonical, grammar, rendering
from specs.canonical import CanonicalError, Change
from specs.explain import explain
from specs.loader import LoadOptions
from specs.project import Project, Service
from specs.selection import select
from tests.unit.specs.conftest import Load

SPEC = """
services:
  web:
    image: nginx
    ports: ["8080:80"]
    environment: {PRICE: 5$$, B: }
    depends_on: [db]
    secrets: [key]
    stop_grace_period: 90s
    shm_size: 64m
  db: {image: pg, profiles: []}
  tool: {image: t, profiles: [tools]}
secrets: {key: {environment: KEY}}
"""


def test_the_canonical_form_is_plain_versioned_and_exact(load: Load) -> None:
    project = load(SPEC, environ={"KEY": "hidden"}).project
    form = project.canonical()
    assert form["version"] == canonical.VERSION
    assert json.loads(json.dumps(form)) == form
    assert Project.from_canonical(form) == project
    assert list(form) == sorted(form)


def test_the_canonical_form_does_not_depend_on_the_order_of_keys(load: Load) -> None:
    one = load("services:\n  a: {image: x, hostname: h}\n  b: {image: y}\n").project
    two = load("services:\n  b: {image: y}\n  a: {hostname: h, image: x}\n").project
    assert canonical.digest(one) == canonical.digest(two)


def test_a_document_of_a_newer_release_is_refused() -> None:
    with pytest.raises(CanonicalError, match="version 99"):
        Project.from_canonical({"version": 99})
    with pytest.raises(CanonicalError, match="no version"):
        Project.from_canonical({"name": "x"})
    with pytest.raises(CanonicalError, match="not a project: working_dir: field required"):
        Project.from_canonical({"version": 1, "name": "x"})


def test_an_older_document_is_migrated_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "VERSION", 3)
    steps = {1: lambda d: {**d, "one": 1}, 2: lambda d: {**d, "two": d["one"] + 1}}
    monkeypatch.setattr(canonical, "MIGRATIONS", steps)
    assert canonical.upgrade({"version": 1, "x": 0}) == {"x": 0, "one": 1, "two": 2}


def test_differences_are_told_by_field_with_both_values(load: Load) -> None:
    old = load(SPEC).project.services["web"]
    new = load(SPEC.replace("8080", "9090").replace("90s", "10s")).project.services["web"]
    assert canonical.diff(old, new) == [
        Change(path="ports[0].published", old="8080", new="9090"),
        Change(path="stop_grace_period", old=90 * 10**9, new=10 * 10**9),
    ]
    assert canonical.diff(old, old) == []


def test_true_and_one_are_different() -> None:
    assert canonical.diff({"a": True}, {"a": 1}) == [Change(path="a", old=True, new=1)]


def test_config_prints_compose_notation_and_no_secret(load: Load) -> None:
    project = load(SPEC, environ={"KEY": "hidden"}).project
    text = rendering.render_yaml(project)
    assert "PRICE: 5$$" in text
    assert "B: null" in text
    assert "stop_grace_period: 1m30s" in text
    assert 'shm_size: "67108864"' in text
    assert "hidden" not in text + rendering.render_json(project)
    web = json.loads(rendering.render_json(project))["services"]["web"]
    assert (web["command"], web["entrypoint"]) == (None, None)


def test_the_lists_that_config_prints(load: Load) -> None:
    project = load(SPEC).project
    assert rendering.services(project) == ["db", "web"]
    assert rendering.images(project) == ["pg", "nginx"]
    assert rendering.networks(project) == ["default"]
    assert rendering.volumes(project) == []
    assert rendering.profiles(project) == ["tools"]
    assert rendering.environment({"B": "2", "A": "1"}) == ["A=1", "B=2"]


def test_models_are_listed_by_what_they_are_made_of(load: Load) -> None:
    text = "services: {a: {image: i, models: [llm]}}\nmodels: {llm: {model: ai/smollm2}}\n"
    assert rendering.models(load(text).project) == ["ai/smollm2"]


@pytest.mark.parametrize("text", [".inf", "-.Inf", "+.INF", ".nan", ".NaN"])
def test_text_that_other_parsers_take_for_a_number_is_quoted(load: Load, text: str) -> None:
    project = load(f"services: {{a: {{image: i, environment: {{V: '{text}'}}}}}}").project
    assert f'V: "{text}"' in rendering.render_yaml(project)


def test_a_key_that_looks_like_a_merge_is_printed_as_the_text_it_is(load: Load) -> None:
    project = load("services: {a: {image: i, labels: {'<<': x}}}").project
    printed = rendering.render_yaml(project)
    assert load(printed).project.services["a"].labels == {"<<": "x"}


def test_a_published_port_left_empty_is_of_the_hosts_choice(load: Load) -> None:
    text = "services: {a: {image: i, ports: [{target: 80, published: '${P:-}'}]}}"
    (port,) = load(text).project.services["a"].ports
    assert port.published is None


def test_hashes_change_with_what_makes_another_container(load: Load) -> None:
    before = rendering.hashes(load(SPEC).project)
    after = rendering.hashes(load(SPEC.replace("8080", "9090")).project)
    assert before["db"] == after["db"]
    assert before["web"] != after["web"]
    scaled = rendering.hashes(load(SPEC.replace("image: pg", "image: pg, scale: 3")).project)
    assert scaled["db"] == before["db"]


def test_images_are_pinned_by_a_resolver(load: Load) -> None:
    project = load(SPEC).project

    def resolve(reference: str) -> str:
        return f"{reference}@sha256:{'0' * 64}"

    pinned = rendering.with_image_digests(project, resolve)
    assert pinned.services["db"].image.startswith("pg@sha256:")
    assert "image: pg@sha256:" in rendering.lock_image_digests(project, resolve)


def test_variables_of_a_model_are_listed_with_their_words() -> None:
    model = {"a": "${A:-1} $B", "c": ["${B:?no}", "${C:+x}"]}
    found = {variable.name: variable for variable in rendering.variables(model)}
    assert found["A"].default == "1"
    assert found["B"].required
    assert found["C"].alternate == "x"


def test_a_selection_keeps_the_named_services_and_what_they_need(load: Load) -> None:
    project = select(load(SPEC).project, ["db"])
    assert set(project.services) == {"db"}
    assert set(select(load(SPEC).project, ["web"]).services) == {"web", "db"}
    assert set(select(load(SPEC).project, ["tool"]).services) == {"tool"}
    alone = select(load(SPEC).project, ["web"], dependencies=False)
    assert alone.services["web"].depends_on == {}


def test_a_variable_is_explained_with_what_it_hides(load: Load) -> None:
    files = {"compose.yaml": "services:\n  a: {image: 'x:${T:-0}'}\n", ".env": "U=1\nT=2\n"}
    working_dir = load(files).project.working_dir
    options = LoadOptions(environ={"T": "3"}, cwd=Path(working_dir))
    explanation = explain("T", options)
    assert explanation.setting is not None
    assert (explanation.setting.value, explanation.setting.origin) == ("3", "environment")
    hidden = explanation.shadowed[0]
    assert (hidden.value, hidden.line) == ("2", 2)
    assert hidden.origin.endswith("/.env")
    assert [(use.line, use.path, use.default) for use in explanation.uses] == [
        (2, "services.a.image", "0")
    ]
    assert explain("NOPE", options).setting is None


def test_the_schema_for_editors_and_the_model_have_every_service_key() -> None:
    assert set(grammar.SERVICE.properties) <= set(Service.model_fields)
    schema = grammar.json_schema()
    assert len(schema["$defs"]["service"]["properties"]) == 93
    assert schema["properties"]["services"]["patternProperties"]
