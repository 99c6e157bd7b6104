"""Routes of git sources: what there is, what is asked of them, and where deliveries are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.serving.messages import Answer, Request, Response, json_response
from orchestrator.serving.routes import RouteTable
from orchestrator.supervisor.gitops_bodies import (
    GitopsListenBody,
    GitopsRollbackBody,
    GitopsSourceBody,
    GitopsSyncBody,
)
from orchestrator.supervisor.instance import Instance
from orchestrator.supervisor.operations import Run
from orchestrator.supervisor.requests import flag, instance_of, read_body
from orchestrator.supervisor.source_health import present_health
from orchestrator.supervisor.source_preview import preview
from orchestrator.supervisor.source_status import is_standing, message, passage_body, source_status
from orchestrator.supervisor.streaming import stream_run

ROUTES = RouteTable()


@ROUTES.get("/v1/gitops/sources")
async def list_sources(request: Request) -> Response:
    """Every source, with what was tried last and what stands."""
    instance = instance_of(request)
    names = [record.name for record in instance.host.store.gitops.all()]
    return json_response([await _status(instance, name) for name in names])


@ROUTES.post("/v1/gitops/sources")
async def add_source(request: Request) -> Response:
    """Take a source on, or go on with another definition of it."""
    from orchestrator.gitops.source import GitSource

    body = await read_body(request, GitopsSourceBody)
    instance = instance_of(request)
    source = GitSource.from_canonical(body.source)
    await instance.sources.add(source)
    return json_response(await _status(instance, source.name))


@ROUTES.get("/v1/gitops/sources/{source}")
async def show_source(request: Request) -> Response:
    """One source, with its definition."""
    instance, name = instance_of(request), request.parameters["source"]
    record = instance.sources.record(name)
    return json_response({**await _status(instance, name), "definition": record.document})


@ROUTES.delete("/v1/gitops/sources/{source}")
async def remove_source(request: Request) -> Answer:
    """Forget a source and take down what it has put here, or with `keep` leave that running."""
    instance, name = instance_of(request), request.parameters["source"]
    keep = flag(request, "keep")
    instance.sources.record(name)
    return await stream_run(request, lambda run: instance.sources.remove(name, keep=keep, run=run))


@ROUTES.post("/v1/gitops/sources/{source}/sync")
async def sync_source(request: Request) -> Answer:
    """Have the repository asked at once; with `wait` tell how it goes until it has come to rest.
    What is under way goes on without the client."""
    body = await read_body(request, GitopsSyncBody)
    instance, name = instance_of(request), request.parameters["source"]
    sources = instance.sources
    if not body.wait:
        await sources.sync(name, force=body.force)
        return json_response(await _status(instance, name), status=202)
    instance.sources.record(name)
    return await stream_run(
        request,
        lambda run: _follow(instance, name, run, lambda: sources.sync(name, force=body.force)),
    )


@ROUTES.post("/v1/gitops/sources/{source}/rollback")
async def roll_back(request: Request) -> Answer:
    """Go back to a revision that was healthy, and stay there until the source is resumed."""
    body = await read_body(request, GitopsRollbackBody)
    instance, name = instance_of(request), request.parameters["source"]
    instance.sources.record(name)
    return await stream_run(
        request,
        lambda run: _follow(
            instance, name, run, lambda: instance.sources.rollback(name, body.revision)
        ),
    )


@ROUTES.post("/v1/gitops/sources/{source}/{verb:suspend|resume}")
async def hold(request: Request) -> Response:
    """Follow the source no further, or again."""
    instance, name = instance_of(request), request.parameters["source"]
    verb = request.parameters["verb"]
    (instance.sources.suspend if verb == "suspend" else instance.sources.resume)(name)
    return json_response(await _status(instance, name))


@ROUTES.get("/v1/gitops/sources/{source}/history")
async def list_history(request: Request) -> Response:
    """What was tried, oldest first, and how it ended."""
    instance, name = instance_of(request), request.parameters["source"]
    record = instance.sources.record(name)
    entries = instance.host.store.gitops.history(name)
    return json_response([passage_body(entry, record.applied) for entry in entries])


@ROUTES.get("/v1/gitops/sources/{source}/diff")
async def show_preview(request: Request) -> Response:
    """What applying the commit that the repository has now would do."""
    instance, name = instance_of(request), request.parameters["source"]
    return json_response(await preview(instance, name))


@ROUTES.get("/v1/gitops/webhook")
async def show_listener(request: Request) -> Response:
    """Where deliveries are taken, and what is kept for the next daemon; "" is nowhere."""
    instance = instance_of(request)
    kept = instance.host.store.gitops.setting("webhook")
    return json_response({"address": instance.webhooks.address, "kept": kept})


@ROUTES.put("/v1/gitops/webhook")
async def set_listener(request: Request) -> Response:
    """Take deliveries at this address from now on, after a new start too; "" is nowhere."""
    body = await read_body(request, GitopsListenBody)
    instance = instance_of(request)
    await instance.webhooks.listen(body.address)
    instance.host.store.gitops.put_setting("webhook", body.address)
    return json_response({"address": instance.webhooks.address, "kept": body.address})


async def _follow(
    instance: Instance, name: str, run: Run, ask: Callable[[], Awaitable[object]]
) -> dict[str, Any]:
    """Ask something of a source and tell how it goes until it rests; gives the last event."""
    syncer = instance.sources.syncer(name)
    with syncer.followed(run.emit):
        await ask()
        waiting = asyncio.ensure_future(syncer.outlook.answered(instance.sources.poke(name)))
        leaving = asyncio.ensure_future(run.cancel.wait())
        try:
            await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            leaving.cancel()
    status = await _status(instance, name)
    record = instance.sources.record(name)
    error = None
    good = is_standing(record, syncer.sight) and not (syncer.sight.message or syncer.sight.setback)
    planned = record.attempted is not None and record.attempted.outcome == "planned"
    if not (good or planned):
        words = message(record, syncer.sight) or f"it is {status['state'].lower()}"
        error = {
            "type": status["state"],
            "message": f"source {name}: {words}",
            "hint": None,
            "exit_code": 1,
        }
    return {
        "type": "result",
        "ok": error is None,
        "error": error,
        "exit_code": 0 if error is None else 1,
        "source": status,
    }


async def _status(instance: Instance, name: str) -> dict[str, Any]:
    record = instance.sources.record(name)
    syncer = instance.sources.syncer(name)
    inventory = instance.host.store.gitops.inventory(name)
    healths = await asyncio.to_thread(present_health, instance.backend, inventory)
    return source_status(record, syncer.sight, syncer.doing, inventory, healths)
