"""Override files laid over each other: the tables, and what has no table."""

from __future__ import annotations

from typing import Any

import pytest

from specs import merge, resets
from specs.errors import SpecIssue
from specs.parsing import parse
from specs.source import Source


def merged(base: str, over: str) -> Any:
    """The service `a` of two files, given as the flow mappings of their attributes."""
    first, second = (
        parse(Source("f", f"services: {{a: {{{text}}}}}\n"))[0] for text in (base, over)
    )
    assert first.root is not None and second.root is not None
    issues: list[SpecIssue] = []
    resets.apply(first.root, second.resets)
    tree = merge.merge(first.root, second.root, issues)
    merge.enforce_uniqueness(tree, issues)
    assert issues == []
    return tree.plain()["services"]["a"]


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ("image: x", "image: y", {"image": "y"}),
        ("image: x", "image: ", {"image": "x"}),
        ("command: [a]", "command: b", {"command": "b"}),
        (
            "environment: {A: 1, B: 2}",
            "environment: [B=3, C]",
            {"environment": ["A=1", "B=3", "C"]},
        ),
        ("security_opt: [a]", "security_opt: [b, a]", {"security_opt": ["a", "b"]}),
        ("volumes: ['./a:/x']", "volumes: ['./b:/x', './c:/y']", {"volumes": ["./b:/x", "./c:/y"]}),
        ("ports: ['80:80']", "ports: ['80:80', '81:81']", {"ports": ["80:80", "81:81"]}),
        (
            "networks: [m]",
            "networks: {n: {priority: 1}}",
            {"networks": {"m": None, "n": {"priority": 1}}},
        ),
        ("build: ./a", "build: {dockerfile: D}", {"build": {"context": "./a", "dockerfile": "D"}}),
        ("dns: 1.1.1.1", "dns: [8.8.8.8]", {"dns": ["1.1.1.1", "8.8.8.8"]}),
        (
            "ulimits: {n: 1}",
            "ulimits: {n: {soft: 1, hard: 2}}",
            {"ulimits": {"n": {"soft": 1, "hard": 2}}},
        ),
        (
            "logging: {driver: a, options: {x: 1}}",
            "logging: {driver: b, options: {y: 1}}",
            {"logging": {"driver": "b", "options": {"y": 1}}},
        ),
        ("hostname: h, tty: true", "hostname: !reset null", {"tty": True}),
        ("cap_add: [A]", "cap_add: !override [B]", {"cap_add": ["B"]}),
    ],
)
def test_two_files(base: str, over: str, result: dict[str, Any]) -> None:
    assert merged(base, over) == result


def test_a_list_over_a_mapping_is_told_where_it_stands() -> None:
    first = parse(Source("a", "services: {a: {healthcheck: {test: x}}}\n"))[0].root
    second = parse(Source("b", "services:\n  a:\n    healthcheck: [x]\n"))[0].root
    assert first is not None and second is not None
    issues: list[SpecIssue] = []
    merge.merge(first, second, issues)
    assert [(issue.path, issue.file, issue.line) for issue in issues] == [
        ("services.a.healthcheck", "b", 3)
    ]
