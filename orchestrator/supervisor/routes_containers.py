"""Routes of single containers: run, rm, pause, unpause, top, stats."""

from __future__ import annotations

import asyncio
from time import time
from typing import Any

from orchestrator.engine import processes
from orchestrator.engine.host import Host
from orchestrator.engine.records import ContainerRecord
from orchestrator.planning.errors import UnknownService
from orchestrator.planning.removal import remove
from orchestrator.serving.messages import Answer, Request, Response, json_response
from orchestrator.serving.routes import RouteTable
from orchestrator.supervisor.bodies import Body, Options
from orchestrator.supervisor.oneoff import RunBody, run_oneoff
from orchestrator.supervisor.operations import Run
from orchestrator.supervisor.projects import resolve_project
from orchestrator.supervisor.requests import flag, instance_of, read_body
from orchestrator.supervisor.streaming import Write, stream_lines, stream_run

ROUTES = RouteTable()

_INTERVAL = 1.0  # seconds between two samples of stats


class RemoveOptions(Options):
    stop: bool = False
    volumes: bool = False
    timeout: float | None = None


class RemoveBody(Body):
    """`services` empty is all; `names` narrows to containers of these names."""

    services: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    options: RemoveOptions = RemoveOptions.model_construct()


class PauseBody(Body):
    services: tuple[str, ...] = ()


@ROUTES.post("/v1/projects/{project}/run")
async def run_container(request: Request) -> Answer:
    body = await read_body(request, RunBody)
    instance = instance_of(request)
    store, name = instance.host.store, request.parameters["project"]
    project = resolve_project(store, name, body.project, body.inputs)
    return await stream_run(request, lambda run: run_oneoff(instance, project, body.options, run))


@ROUTES.post("/v1/projects/{project}/rm")
async def remove_containers(request: Request) -> Answer:
    body = await read_body(request, RemoveBody)
    instance, name = instance_of(request), request.parameters["project"]

    async def operation(run: Run) -> dict[str, Any]:
        await instance.operations.make_room()
        async with instance.operations.exclusive(name):
            observed = await instance.backend.observe(name)
            plan = remove(
                name,
                observed,
                body.services,
                names=body.names,
                stop=body.options.stop,
                volumes=body.options.volumes,
                timeout=body.options.timeout,
            )
            return await instance.operations.carry_out(plan, run)

    return await stream_run(request, operation, plans=True)


@ROUTES.post("/v1/projects/{project}/{verb:pause|unpause}")
async def pause_containers(request: Request) -> Answer:
    body = await read_body(request, PauseBody)
    host, name = instance_of(request).host, request.parameters["project"]
    paused = request.parameters["verb"] == "pause"

    async def operation(run: Run) -> dict[str, Any]:
        for record in _chosen(host, name, body.services):
            resource = f"container {record.name}"
            async with host.transition(record.name):
                # What is as asked for already, or does not run, is left out.
                if not await asyncio.to_thread(processes.pause, host, record.id, paused):
                    continue
            host.tell("pause" if paused else "unpause", record)
            run.emit(
                {
                    "type": "step",
                    "id": record.name,
                    "status": "done",
                    "resource": resource,
                    "text": "Paused" if paused else "Unpaused",
                    "detail": "",
                    "seconds": None,
                }
            )
        return {"type": "result", "ok": True, "error": None, "exit_code": 0}

    return await stream_run(request, operation)


@ROUTES.get("/v1/projects/{project}/top")
async def list_processes(request: Request) -> Response:
    """The processes of running containers of the services in `service` (repeated)."""
    host = instance_of(request).host
    services = request.query.all("service")
    records = _chosen(host, request.parameters["project"], services)

    def look() -> list[dict[str, Any]]:
        found = []
        for record in records:
            rows = processes.list_processes(host, record.id)
            if rows:
                found.append({"name": record.name, "service": record.service, "processes": rows})
        return found

    shown = await asyncio.to_thread(look)
    return json_response({"heads": list(processes.HEADS), "containers": shown})


@ROUTES.get("/v1/projects/{project}/stats")
async def stream_stats(request: Request) -> Answer:
    """A sample of all containers a line, one a second; with `once` two and the end."""
    instance, name = instance_of(request), request.parameters["project"]
    all, once = flag(request, "all"), flag(request, "once")
    services = request.query.all("service")
    _chosen(instance.host, name, services)

    def look() -> list[dict[str, Any]]:
        shown = []
        for record in _chosen(instance.host, name, (), only=services):
            found = processes.sample(instance.host, record)
            if found is not None or all:
                shown.append(processes.to_json(record, found))
        return shown

    async def lines(write: Write) -> None:
        await write({"containers": await asyncio.to_thread(look), "at": time()})
        rounds = 1
        while not instance.ending.is_set() and not (once and rounds > 1):
            try:
                await asyncio.wait_for(instance.ending.wait(), _INTERVAL)
            except TimeoutError:
                await write({"containers": await asyncio.to_thread(look), "at": time()})
            rounds += 1

    return await stream_lines(request, lines)


def _chosen(
    host: Host, project: str, services: tuple[str, ...], *, only: tuple[str, ...] = ()
) -> list[ContainerRecord]:
    """The project's containers, of `services` where given; raises UnknownService for one that
    has none, which `only` takes for none."""
    records = host.store.containers(project)
    known = {record.service for record in records}
    for service in services:
        if service not in known:
            raise UnknownService(service, known)
    wanted = services or only
    return sorted(
        (r for r in records if not wanted or r.service in wanted),
        key=lambda record: (record.service, record.number),
    )
