"""The API's description, made from the routes and the bodies that they read.

A handler's docstring describes it. Its body is the model that it names (`read_body(request,
UpBody)`), found in its code, so that the description cannot lag behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

from orchestrator.serving.routes import Route
from orchestrator.supervisor.bodies import Body
from orchestrator.version import VERSION

_PARAMETER = re.compile(r"\{([a-z_]+)(?::[^{}]*)?\}")
_CHOICE = re.compile(r"[a-z]+(?:\|[a-z]+)+")
_TEMPLATE = "#/components/schemas/{model}"


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """An OpenAPI 3.1 document of all routes."""
    from pydantic.json_schema import models_json_schema  # 2 MB that hardly anybody asks for

    shown = [(path, route) for route in routes for path in _paths(route) if route.method != "HEAD"]
    models = sorted({m for _, route in shown for m in bodies(route)}, key=lambda m: m.__name__)
    _, schemas = models_json_schema([(m, "validation") for m in models], ref_template=_TEMPLATE)
    paths: dict[str, dict[str, Any]] = {}
    for path, route in sorted(shown, key=lambda pair: (pair[0], pair[1].method)):
        paths.setdefault(path, {})[route.method.lower()] = _operation(path, route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bayplan",
            "version": VERSION,
            "description": "HTTP on the daemon's Unix socket; long answers are JSON lines.",
        },
        "paths": paths,
        "components": {"schemas": {**schemas.get("$defs", {}), "Error": _ERROR}},
    }


_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message", "exit_code"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": ["string", "null"]},
                "exit_code": {"type": "integer"},
            },
        }
    },
}


def bodies(route: Route) -> Iterator[type[Body]]:
    """The models that the route's handler reads."""
    handler = route.handler
    if isinstance(handler, FunctionType):
        for name in handler.__code__.co_names:
            found = handler.__globals__.get(name)
            if isinstance(found, type) and issubclass(found, Body):
                yield found


def _paths(route: Route) -> Iterator[str]:
    """The route's paths in OpenAPI's form; a parameter that is one of some words gives one each."""
    paths = [_PARAMETER.sub(r"{\1}", route.path)]
    for name, pattern in route.parameters.items():
        if _CHOICE.fullmatch(pattern):
            paths = [p.replace("{" + name + "}", w) for p in paths for w in pattern.split("|")]
    yield from paths


def _operation(path: str, route: Route) -> dict[str, Any]:
    text = (route.handler.__doc__ or route.handler.__name__.replace("_", " ").capitalize()).strip()
    summary, _, details = text.partition("\n")
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()} {path}",
        "summary": summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(path)
        ],
        "responses": {
            "200": {"description": "done, or under way as JSON lines"},
            "default": {
                "description": "what failed",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if details.strip():
        operation["description"] = "\n".join(line.strip() for line in details.strip().split("\n"))
    for model in bodies(route):
        reference = {"$ref": _TEMPLATE.format(model=model.__name__)}
        operation["requestBody"] = {"content": {"application/json": {"schema": reference}}}
    return operation
