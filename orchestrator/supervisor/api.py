"""The HTTP API: the routes by subject, and the one place where an error becomes an answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

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
from orchestrator.supervisor.requests import INSTANCE
from orchestrator.version import VERSION

_log = logging.getLogger(__name__)

SERVER = f"bayplan/{VERSION}"
LARGEST_BODY = 64 * 1024 * 1024

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(instance: Instance) -> web.Application:
    app = web.Application(middlewares=[_answer_errors], client_max_size=LARGEST_BODY)
    app[INSTANCE] = instance
    app.on_response_prepare.append(_name_server)
    app.add_routes(routes_system.ROUTES)
    app.add_routes(routes_status.ROUTES)
    app.add_routes(routes_projects.ROUTES)
    app.add_routes(routes_containers.ROUTES)
    app.add_routes(routes_resources.ROUTES)
    app.add_routes(routes_rollouts.ROUTES)
    app.add_routes(routes_gitops.ROUTES)
    app.on_startup.append(routes_rollouts.resume_unfinished)
    return app


async def _name_server(_request: web.Request, response: web.StreamResponse) -> None:
    """Every answer says which version gives it, so that a later client can have another one."""
    response.headers["Server"] = SERVER


@web.middleware
async def _answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as exc:
        body = {
            "type": "BadRequest",
            "message": f"{request.method} {request.path}: {exc.reason.lower()}",
            "hint": None,
            "exit_code": 1,
        }
        return web.json_response({"error": body}, status=exc.status)
    except Exception as exc:
        if not expected(exc):
            _log.exception("%s %s", request.method, request.path)
        return web.json_response({"error": error_body(exc)}, status=status_of(exc))
