"""The dependency graph of a project's services.

An edge leads from a service to what it depends on. Order is by name wherever the
dependencies leave a choice, so that one project always gives one plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import networkx as nx

from orchestrator.planning.errors import DependencyCycle

Dependencies = Mapping[str, Iterable[str]]
"""Service → the services that it depends on; names that are not keys are left out."""


class DependencyGraph:
    """Services and their dependencies, without cycles.

    Raises DependencyCycle with the path of the first cycle, by service name.
    """

    def __init__(self, dependencies: Dependencies) -> None:
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(sorted(dependencies))
        for service in sorted(dependencies):
            for dependency in sorted(dependencies[service]):
                if dependency in dependencies:
                    graph.add_edge(service, dependency)
        if not nx.is_directed_acyclic_graph(graph):
            raise DependencyCycle(_first_cycle(graph))
        self._graph = graph

    def __iter__(self) -> Iterator[str]:
        """Services, each one after everything that it depends on."""
        return iter(nx.lexicographical_topological_sort(self._graph.reverse(copy=False)))

    def reverse(self) -> Iterator[str]:
        """Services, each one after everything that depends on it."""
        return iter(nx.lexicographical_topological_sort(self._graph))

    def with_dependencies(self, services: Iterable[str]) -> frozenset[str]:
        """`services` and all that they need, directly or not."""
        selected: set[str] = set()
        for service in services:
            selected.add(service)
            selected.update(nx.descendants(self._graph, service))
        return frozenset(selected)

    def dependents(self, service: str) -> tuple[str, ...]:
        """The services that name `service` as a dependency, sorted."""
        return tuple(sorted(self._graph.predecessors(service)))


def _first_cycle(graph: nx.DiGraph[str]) -> list[str]:
    edges = nx.find_cycle(graph, source=sorted(graph))
    path = [edge[0] for edge in edges]
    # Start at the smallest name: the same cycle reads the same wherever the search began.
    start = path.index(min(path))
    path = path[start:] + path[:start]
    return [*path, path[0]]
