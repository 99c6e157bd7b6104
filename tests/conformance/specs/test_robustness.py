"""Whatever is in a file, a load ends in a project or in a list of faults, soon and small."""

from __future__ import annotations

import copy
import os
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from specs import canonical, dotenv, merge, rendering
from specs.errors import SpecError, SpecIssue
from specs.loader import LoadOptions, load_project
from specs.parsing import parse
from specs.project import Project
from specs.source import Node, Source, wrap
from tests.conformance.specs.oracle import corpus_files

# ruff: noqa: E501  # tables of tokens and values

ITERATIONS = int(os.environ.get("BAYPLAN_FUZZ_ITERATIONS", "1500"))
SECONDS = 1.0
MEGABYTES = 200

SEEDS = [
    "services:\n  a: {image: x, ports: ['80:80'], volumes: [./a:/a], environment: {A: $B}}\n",
    "x-a: &a {b: 1}\nservices:\n  a:\n    <<: *a\n    build: .\n    depends_on: [b]\n"
    "  b: {image: y, healthcheck: {test: x, interval: 3s}}\nnetworks: {n: }\n",
    "services:\n  a: {extends: {file: spec.yaml, service: b}}\ninclude: [other.yaml]\n",
]
TOKENS = [
    *"{}[]:,-&*!|>%@`'\"#?~\t\n\r\\", "- ", ": ", "\n  ", "\n    - ", "<<: ", "&a ", "*a ", "!reset ",
    "!override ", "!!binary ", "!!int ", "${", "}", "$", "$$", "${A:-", "${A:?", "---\n", "...\n",
    "\ufeff", "\x00", "\x07", "\ud7ff", "ü", "𝄞", "null", "true", "1e999", "0x", "-1", "9" * 30,
    "services:", "a" * 300, "[" * 40, "{a: " * 40, "- " * 40, "1-65535:1-65535", "999999h", "1e309",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 1e300, float("inf"), float("nan"), 2**70, "", " ", "a", ":", "::", "/",
    "~", "~/", "$A", "${A", "${A:-${B}}", "$$", "80", "80:80", "1-9:1-9", "70000:80", "a:b:c:d",
    "10s", "1x", "-1s", "1gb", "service:a", "container:a", "../..", "http://x", "\n", "a\nb", "\u0085",
    [], [None], [[]], [{}], ["a", "a"], [1, "1"], {}, {"a": None}, {"": ""}, {"x-a": [1]},
    {"source": "a"}, {"target": []}, {"file": "x"}, {"external": {"name": "y"}}, {"path": {}},
]  # fmt: skip


def _texts(rng: random.Random) -> Iterator[str]:
    files = [path.read_text() for path in corpus_files() if path.stat().st_size < 4000]
    seeds = SEEDS + files
    while True:
        text = rng.choice(seeds)
        yield _mangle(text, rng) if rng.random() < 0.5 else _distort(text, rng)


def _mangle(text: str, rng: random.Random) -> str:
    """Characters and tokens put in, taken out and moved."""
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 1, 3, 20)))
        action = rng.random()
        if action < 0.6:
            text = text[:start] + rng.choice(TOKENS) + text[end:]
        elif action < 0.8:
            text = text[:start] + text[end:]
        else:
            text = text[:start] + text[start:end] * rng.choice((2, 30)) + text[end:]
    return text


def _distort(text: str, rng: random.Random) -> str:
    """Values replaced by others, anywhere in the tree."""
    documents = parse(Source("seed", text))
    tree = copy.deepcopy(documents[0].root.plain()) if documents and documents[0].root else {}
    for _ in range(rng.randint(1, 4)):
        place: Any = tree
        key: Any = None
        parent: Any = None
        while isinstance(place, dict | list) and place and (key is None or rng.random() < 0.8):
            parent = place
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            place = parent[key]
        if parent is None:
            continue
        if rng.random() < 0.7:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        elif isinstance(parent, dict):
            parent[rng.choice(("x-y", "image", "build", "ports", "a b", "deploy", key))] = place
    return yaml.safe_dump(tree, allow_unicode=True)


def test_any_text_gives_a_project_or_faults(tmp_path: Path) -> None:
    rng = random.Random(7)
    (tmp_path / "other.yaml").write_text("services: {o: {image: x}}\n")
    spec = tmp_path / "spec.yaml"
    texts = _texts(rng)
    slowest = 0.0
    loaded = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(ITERATIONS):
        text = next(texts)
        spec.write_bytes(text.encode("utf-8", "surrogatepass"))
        options = LoadOptions(files=(str(spec),), environ={"B": "x"}, cwd=tmp_path)
        started = time.process_time()
        try:
            project = load_project(options).project
        except SpecError as exc:
            assert exc.issues
            str(exc)
        else:
            loaded += 1
            rendering.render_yaml(project)
            assert Project.from_canonical(project.canonical()) == project
        slowest = max(slowest, time.process_time() - started)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert loaded > ITERATIONS * 0.02
    assert grown < MEGABYTES
    assert slowest < SECONDS * 3, "one load took too long (the bound is tripled for busy machines)"


def test_any_env_file_gives_variables_or_faults() -> None:
    rng = random.Random(8)
    seeds = [
        "A=1\nexport B='x y'\nC=\"a $A\"\n# c\nD: e\nF\n",
        "A=${B:-c} # d\n",
        'A="\\n\\"\\$"\n',
    ]
    for _ in range(ITERATIONS):
        text = _mangle(rng.choice(seeds), rng)
        try:
            values = dotenv.parse(Source(".env", text), {"B": "b"}.get)
        except SpecError as exc:
            assert exc.issues[0].line > 0
        else:
            assert all(isinstance(value, str) for value in values.values())


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n"
            for i in range(9)
        ),
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "? " * 100_000,
        "a: &a\n  b: *a\n",
        "\n".join(" " * i + f"k{i}:" for i in range(3000)),
        "services: {a: {image: '" + "${A:-" * 3000 + "}" * 3000 + "'}}",
        "services: {a: {image: x, ports: ['1-65535:1-65535']}}",
        "services:\n" + "".join(f"  s{i}: {{extends: s{i + 1}}}\n" for i in range(3000)),
        "services:\n"
        + "".join(f"  s{i}: {{image: x, depends_on: [s{i + 1}]}}\n" for i in range(2000)),
        "x: " + "9" * 100_000,
        "x: '" + "a" * 10_000_000 + "'",
        "services: {a: {image: x, mem_limit: '" + "9" * 5000 + "'}}",
        "services: {a: {image: x, stop_grace_period: '" + "1s" * 50_000 + "'}}",
    ],
    ids=[
        "alias bomb", "brackets", "braces", "dashes", "complex keys", "recursive alias",
        "deep blocks", "deep variables", "all ports", "long extends", "long dependencies",
        "long number", "long string", "long size", "long duration",
    ],
)  # fmt: skip
def test_hostile_files_end_soon(text: str, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    started = time.process_time()
    try:
        load_project(LoadOptions(files=(str(spec),), environ={}, cwd=tmp_path))
    except SpecError as exc:
        assert len(str(exc)) < 100_000
    assert time.process_time() - started < SECONDS * 3


def _shuffle(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: _shuffle(value[key], rng) for key in keys}
    if isinstance(value, list):
        return [_shuffle(item, rng) for item in value]
    return value


def _random_service(rng: random.Random) -> dict[str, Any]:
    choices: dict[str, list[Any]] = {
        "environment": [{"A": 1, "B": None}, ["A=2", "C"], {"D": True, "A": 3}],
        "labels": [{"a": 1, "b": ""}, ["a=2", "c"]],
        "ports": [["80:80", "81:81/udp"], [{"target": 80, "published": "80"}, "90"]],
        "volumes": [["./a:/a", "data:/d"], [{"type": "tmpfs", "target": "/a"}, "./b:/b"]],
        "networks": [["m", "n"], {"m": {"aliases": ["x"], "priority": 2}, "n": None}],
        "depends_on": [["z"], {"z": {"condition": "service_healthy"}}],
        "build": [".", {"context": "./x", "args": {"A": 1, "B": 2}}, {"args": ["A=3"]}],
        "deploy": [{"replicas": 1, "labels": {"a": 1, "b": 2}}, {"labels": ["a=2"]}],
        "ulimits": [{"nofile": 1, "nproc": 2}, {"nofile": {"soft": 1, "hard": 2}}],
        "logging": [{"driver": "d", "options": {"a": "1", "b": "2"}}, {"driver": "e"}],
        "extra_hosts": [{"h": "1.1.1.1", "g": ["2.2.2.2", "3.3.3.3"]}, ["h=1.1.1.1", "i=::1"]],
        "sysctls": [{"a": 1, "b": 2}, ["a=2"]],
        "command": [["a", "b"], "c d"],
        "dns": ["1.1.1.1", ["2.2.2.2", "1.1.1.1"]],
    }
    names = rng.sample(sorted(choices), rng.randint(2, 8))
    return {"image": "x", **{name: copy.deepcopy(rng.choice(choices[name])) for name in names}}


def _random_files(rng: random.Random) -> dict[str, dict[str, Any]]:
    rest = {
        "networks": {"m": {"labels": {"a": 1, "b": 2}}, "n": None},
        "volumes": {"data": {"driver_opts": {"x": 1, "y": 2}}},
    }
    z = {"image": "z"}
    return {
        "compose.yaml": {
            "include": ["inc/o.yaml"],
            "services": {
                "a": {**_random_service(rng), "extends": {"file": "base.yaml", "service": "b"}},
                "c": {"extends": "a", **_random_service(rng)},
                "z": z,
            },
            **rest,
        },
        "compose.override.yaml": {"services": {"a": _random_service(rng)}},
        "base.yaml": {"services": {"b": _random_service(rng)}},
        "inc/o.yaml": {"services": {"i": _random_service(rng), "z": z}, **rest},
    }


def test_merging_does_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    rng = random.Random(9)
    (tmp_path / "inc").mkdir()
    merged = 0
    for _ in range(max(ITERATIONS // 5, 200)):
        files = _random_files(rng)
        forms = []
        for order in range(2):
            for name, content in files.items():
                shuffled = _shuffle(content, rng) if order else content
                (tmp_path / name).write_text(yaml.safe_dump(shuffled, sort_keys=False))
            try:
                project = load_project(LoadOptions(environ={"B": "b"}, cwd=tmp_path)).project
                forms.append(canonical.encode(project.canonical()))
                merged += 1
            except SpecError as exc:
                forms.append("\n".join(sorted(issue.message for issue in exc.issues)).encode())
        assert forms[0] == forms[1]
    assert merged


def test_random_merges_are_the_same_in_any_order_of_keys() -> None:
    rng = random.Random(10)
    for _ in range(1000):
        base, over = _random_service(rng), _random_service(rng)

        def merge_in(order: random.Random | None, base: Any = base, over: Any = over) -> Any:
            left, right = (
                wrap({"services": {"a": _shuffle(side, order) if order else side}})
                for side in (copy.deepcopy(base), copy.deepcopy(over))
            )
            issues: list[SpecIssue] = []
            tree: Node = merge.merge(left, right, issues)
            merge.enforce_uniqueness(tree, issues)
            return tree.plain(), [issue.message for issue in issues]

        assert merge_in(None) == merge_in(rng)
