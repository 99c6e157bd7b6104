"""Which handler a request is for: by method and path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TypeVar

from orchestrator.serving.messages import Handler, HttpError
from orchestrator.serving.targets import settle

H = TypeVar("H", bound=Handler)

_PARAMETER = re.compile(r"\{([a-z_]+)(?::([^{}]+))?\}")
_SEGMENT = "[^{}/]+"


class Route:
    """`path` may name parameters: `{name}` is one segment of it, `{name:pattern}` what that
    regular expression takes."""

    def __init__(self, method: str, path: str, handler: Handler) -> None:
        self.method = method
        self.path = path
        self.handler = handler
        self._start = path.partition("{")[0]
        self._end = path.rpartition("}")[2] if "{" in path else ""

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        pattern, at = "", 0
        for found in _PARAMETER.finditer(self.path):
            pattern += re.escape(self.path[at : found.start()])
            pattern += f"(?P<{found[1]}>{found[2] or _SEGMENT})"
            at = found.end()
        return re.compile(pattern + re.escape(self.path[at:]))

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters' names, each with its pattern, "" where it has none."""
        return {found[1]: found[2] or "" for found in _PARAMETER.finditer(self.path)}

    def match(self, path: str) -> dict[str, str] | None:
        """The parameters in a path of which `unescape` has resolved the escapes."""
        # Most routes are ruled out by this, and their patterns never compiled.
        if not (path.startswith(self._start) and path.endswith(self._end)):
            return None
        found = self._pattern.fullmatch(path)
        if found is None:
            return None
        return {name: settle(value) for name, value in found.groupdict().items()}

    def __repr__(self) -> str:
        return f"<Route {self.method} {self.path}>"


class RouteTable:
    """Collects handlers as they are written down: `@ROUTES.get("/v1/version")`."""

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def get(self, path: str) -> Callable[[H], H]:
        """For HEAD, too."""
        return self._add(("HEAD", "GET"), path)

    def post(self, path: str) -> Callable[[H], H]:
        return self._add(("POST",), path)

    def put(self, path: str) -> Callable[[H], H]:
        return self._add(("PUT",), path)

    def delete(self, path: str) -> Callable[[H], H]:
        return self._add(("DELETE",), path)

    def _add(self, methods: tuple[str, ...], path: str) -> Callable[[H], H]:
        def add(handler: H) -> H:
            self._routes.extend(Route(method, path, handler) for method in methods)
            return handler

        return add


class Router:
    """Finds the first route that takes a method and a path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._plain: dict[tuple[str, str], Route] = {}
        self._named: list[Route] = []
        for route in self.routes:
            if "{" in route.path:
                self._named.append(route)
            else:
                self._plain.setdefault((route.method, route.path), route)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route, and the parameters in `path`, of which `unescape` has resolved the escapes.
        Raises HttpError: 404, or 405 with the methods that there are."""
        plain = self._plain.get((method, path))
        if plain is not None:
            return plain, {}
        allowed = set()
        for route in self._named:
            found = route.match(path)
            if found is not None:
                if route.method == method:
                    return route, found
                allowed.add(route.method)
        allowed |= {known for known, plain_path in self._plain if plain_path == path}
        if allowed:
            raise HttpError(405, headers={"Allow": ", ".join(sorted(allowed))})
        raise HttpError(404)
