"""What makes a plan impossible.

PlanningError
├── DependencyCycle     services that wait for each other
├── UnknownService      a service was named that the project does not have
├── ServiceDisabled     a dependency that no active profile enables
├── TooManyReplicas     more containers than a host can have
└── MissingExternal     an external network or volume that does not exist
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class PlanningError(Exception):
    """Base of all planning errors; `hint` says what a person can do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class DependencyCycle(PlanningError):
    """`path` names the services of the cycle, the first one repeated at the end."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(
            f"services depend on each other in a cycle: {' → '.join(path)}",
            hint="remove one of these depends_on, links or shared namespaces",
        )
        self.path = tuple(path)


class UnknownService(PlanningError):
    def __init__(self, name: str, known: Iterable[str]) -> None:
        import difflib

        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}" if close else f"there are: {', '.join(names) or 'none'}"
        super().__init__(f"no such service: {name}", hint=hint)
        self.name = name


class ServiceDisabled(PlanningError):
    def __init__(self, service: str, dependency: str) -> None:
        super().__init__(
            f"service {service} depends on {dependency}, which no active profile enables",
            hint=f"activate a profile of {dependency}, or set required: false on the dependency",
        )


class TooManyReplicas(PlanningError):
    def __init__(self, project: str, count: int, limit: int) -> None:
        super().__init__(
            f"project {project} asks for {count:,} containers, and {limit:,} are what a plan may "
            "have",
            hint="look at scale and deploy.replicas",
        )


class MissingExternal(PlanningError):
    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"external {kind} does not exist: {name}",
            hint=f"create it first, or drop external: true so that the project makes the {kind}",
        )
