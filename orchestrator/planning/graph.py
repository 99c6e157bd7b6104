"""The dependency graph of a project's services.

An edge leads from a service to what it depends on. Order is by name wherever the
dependencies leave a choice, so that one project always gives one plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from orchestrator.planning.errors import DependencyCycle

if TYPE_CHECKING:
    import networkx as nx

Dependencies = Mapping[str, Iterable[str]]
"""Service → the services that it depends on; names that are not keys are left out."""


class DependencyGraph:
    """Services and their dependencies, without cycles.

    Raises DependencyCycle with the path of the first cycle, by service name.
    """

    def __init__(self, dependencies: Dependencies) -> None:
        self._services = sorted(dependencies)
        edges = [
            (service, dependency)
            for service in self._services
            for dependency in sorted(dependencies[service])
            if dependency in dependencies
        ]
        self._graph = _graph(self._services, edges) if edges else None

    def __iter__(self) -> Iterator[str]:
        """Services, each one after everything that it depends on."""
        if self._graph is None:
            return iter(self._services)
        from orchestrator.planning.networkx_core import nx

        return iter(nx.lexicographical_topological_sort(self._graph.reverse(copy=False)))

    def reverse(self) -> Iterator[str]:
        """Services, each one after everything that depends on it."""
        if self._graph is None:
            return iter(self._services)
        from orchestrator.planning.networkx_core import nx

        return iter(nx.lexicographical_topological_sort(self._graph))

    def with_dependencies(self, services: Iterable[str]) -> frozenset[str]:
        """`services` and all that they need, directly or not."""
        selected = set(services)
        if self._graph is not None:
            from orchestrator.planning.networkx_core import nx

            for service in tuple(selected):
                selected |= nx.descendants(self._graph, service)
        return frozenset(selected)

    def dependents(self, service: str) -> tuple[str, ...]:
        """The services that name `service` as a dependency, sorted."""
        return () if self._graph is None else tuple(sorted(self._graph.predecessors(service)))


def _graph(services: Iterable[str], edges: Iterable[tuple[str, str]]) -> nx.DiGraph[str]:
    """Imported here: where nothing depends on anything, nobody waits for it."""
    from orchestrator.planning.networkx_core import nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(services)
    graph.add_edges_from(edges)
    if not nx.is_directed_acyclic_graph(graph):
        raise DependencyCycle(_first_cycle(graph))
    return graph


def _first_cycle(graph: nx.DiGraph[str]) -> list[str]:
    from orchestrator.planning.networkx_core import nx

    edges = nx.find_cycle(graph, source=sorted(graph))
    path = [edge[0] for edge in edges]
    # Start at the smallest name: the same cycle reads the same wherever the search began.
    start = path.index(min(path))
    path = path[start:] + path[:start]
    return [*path, path[0]]
