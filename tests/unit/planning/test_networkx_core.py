"""The part of networkx that plans use does what the whole does, and stands in nobody's way."""

from __future__ import annotations

import importlib
import random
import sys
from typing import Any

import pytest

from orchestrator.planning import networkx_core


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name == "networkx" or name.startswith("networkx."):
            monkeypatch.delitem(sys.modules, name)


def edges(rng: random.Random, *, cyclic: bool) -> list[tuple[str, str]]:
    names = [f"s{number}" for number in range(12)]
    pairs = [(a, b) for a in names for b in names if a != b and (cyclic or a < b)]
    return rng.sample(pairs, 20)


def test_the_core_orders_and_finds_as_the_whole_does() -> None:
    core = networkx_core.load()
    assert "networkx" not in sys.modules
    whole: Any = importlib.import_module("networkx")
    assert core is not whole
    for seed in range(50):
        found = []
        for nx in (core, whole):
            graph = nx.DiGraph()
            graph.add_edges_from(edges(random.Random(seed), cyclic=False))
            found.append(
                (
                    list(nx.lexicographical_topological_sort(graph)),
                    list(nx.lexicographical_topological_sort(graph.reverse(copy=False))),
                    [nx.descendants(graph, node) for node in graph],
                    [sorted(graph.predecessors(node)) for node in graph],
                )
            )
        assert found[0] == found[1]


def test_the_core_finds_the_cycles_that_the_whole_finds() -> None:
    core = networkx_core.load()
    whole: Any = importlib.import_module("networkx")
    cyclic = 0
    for seed in range(50):
        found = []
        for nx in (core, whole):
            graph = nx.DiGraph()
            graph.add_edges_from(edges(random.Random(seed), cyclic=True))
            acyclic = nx.is_directed_acyclic_graph(graph)
            found.append(None if acyclic else nx.find_cycle(graph, source=sorted(graph)))
        assert found[0] == found[1]
        cyclic += found[0] is not None
    assert cyclic > 10


def test_whoever_imports_networkx_later_gets_all_of_it() -> None:
    networkx_core.load()
    whole: Any = importlib.import_module("networkx")
    assert whole.pagerank and whole.algorithms.community


def test_the_whole_is_taken_where_a_version_does_not_bear_to_be_taken_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(place: str) -> None:
        importlib.import_module("networkx.exception")
        raise AttributeError(place)

    monkeypatch.setattr(networkx_core, "_core", refuse)
    assert networkx_core.load().pagerank
