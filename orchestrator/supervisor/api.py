"""The HTTP API: the routes by subject, and the one place where an error becomes an answer."""

from __future__ import annotations

import logging
from itertools import chain

from orchestrator.serving.messages import HttpError, Request, Response, json_response
from orchestrator.serving.server import Server
from orchestrator.supervisor import (
    routes_containers,
    routes_gitops,
    routes_projects,
    routes_resources,
    routes_rollouts,
    routes_status,
    routes_system,
)
from orchestrator.supervisor.errors import error_body, expected, status_of
from orchestrator.supervisor.instance import Instance
from orchestrator.version import VERSION

_log = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024 * 1024


def server(instance: Instance) -> Server:
    """Serves the API once it is told where to listen."""
    tables = (
        routes_system.ROUTES,
        routes_status.ROUTES,
        routes_projects.ROUTES,
        routes_containers.ROUTES,
        routes_resources.ROUTES,
        routes_rollouts.ROUTES,
        routes_gitops.ROUTES,
    )
    return Server(
        chain.from_iterable(tables),
        context=instance,
        explain=_explain,
        # Every answer says which version gives it, so that a later client can have another one.
        name=f"bayplan/{VERSION}",
        largest_body=LARGEST_BODY,
    )


def _explain(error: Exception, request: Request | None) -> Response:
    asked = f"{request.method} {request.path}" if request is not None else ""
    if isinstance(error, HttpError):
        body = {
            "type": "BadRequest",
            "message": f"{asked}: {error}" if asked else str(error),
            "hint": None,
            "exit_code": 1,
        }
        return json_response({"error": body}, status=error.status, headers=error.headers)
    if not expected(error):
        _log.error("%s", asked, exc_info=error)
    return json_response({"error": error_body(error)}, status=status_of(error))
