"""The API over its socket: bodies, streams, errors, and clients that go away."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp

from orchestrator.engine.events import ContainerEvent, EventBus
from orchestrator.engine.store import Store
from orchestrator.planning.errors import UnknownService
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy
from orchestrator.supervisor import api
from orchestrator.supervisor.instance import Instance
from orchestrator.supervisor.journal import Journal
from orchestrator.supervisor.operations import Run
from orchestrator.supervisor.projects import record_project
from orchestrator.version import VERSION
from specs.project import Project

DOCUMENT = {
    "version": 1,
    "name": "shop",
    "working_dir": "/srv",
    "services": {"web": {"image": "app"}},
}


class ScriptedOperations:
    """Stands where Operations does; `up` does what the test says."""

    def __init__(self, up: Callable[[Run], Awaitable[dict[str, Any]]] | None = None) -> None:
        self._up = up
        self.policies: list[Policy] = []

    async def plan(self, project: Project, policy: Policy) -> Plan:
        self.policies.append(policy)
        return Plan(project=project.name)

    async def up(self, project: Project, policy: Policy, run: Run) -> dict[str, Any]:
        assert self._up is not None
        return await self._up(run)


def serve(
    tmp_path: Path,
    operations: ScriptedOperations,
    body: Callable[[aiohttp.ClientSession, Instance], Awaitable[None]],
) -> None:
    """Run `body` with a client of an API whose host is a store and a bus alone."""

    async def main() -> None:
        with Store(tmp_path) as store:
            bus = EventBus()
            host = SimpleNamespace(store=store, bus=bus, root=tmp_path, run=tmp_path)
            journal = Journal(tmp_path, bus, lambda _id: {})
            journal.open()
            instance = Instance(
                host=cast(Any, host),
                backend=cast(Any, SimpleNamespace(host=host)),
                controller=cast(Any, None),
                operations=cast(Any, operations),
                journal=journal,
            )
            server = api.server(instance)
            path = str(tmp_path / "api.sock")
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(path)
            await server.listen(listener)
            try:
                connector = aiohttp.UnixConnector(path)
                async with aiohttp.ClientSession("http://daemon", connector=connector) as client:
                    await asyncio.wait_for(body(client, instance), 20)
            finally:
                await server.close(1.0)
                journal.close()

    asyncio.run(main())


def test_the_version_tells_where_the_daemon_works(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        async with client.get("/v1/version") as response:
            told = await response.json()
        assert (told["api"], told["root"]) == (1, str(tmp_path))

    serve(tmp_path, ScriptedOperations(), body)


def test_a_plan_takes_its_flags_and_remembers_the_load(tmp_path: Path) -> None:
    operations = ScriptedOperations()
    inputs = {"directory": "/srv", "files": {}}

    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        sent = {"project": DOCUMENT, "inputs": inputs, "options": {"force_recreate": True}}
        async with client.post("/v1/projects/shop/plan", json=sent) as response:
            assert (await response.json())["text"] == "shop: nothing to do"
        async with client.get("/v1/loads", params={"directory": "/srv"}) as response:
            assert await response.json() == [
                {"project": "shop", "config_files": [], "inputs": inputs}
            ]
        again = {"project": None, "inputs": inputs}
        async with client.post("/v1/projects/shop/plan", json=again) as response:
            assert response.status == 200

    serve(tmp_path, operations, body)
    assert [policy.recreate for policy in operations.policies] == ["force", "diverged"]


def test_errors_before_a_run_are_plain_answers(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        async def error(method: str, path: str, data: Any = None) -> tuple[int, str, str]:
            async with client.request(method, path, data=data) as response:
                told = (await response.json())["error"]
                return response.status, told["type"], told["message"]

        assert await error("POST", "/v1/projects/shop/up", "{}") == (
            404,
            "NoSuchProject",
            "no such project: shop",
        )
        status, kind, message = await error("POST", "/v1/projects/shop/up", "{")
        assert (status, kind) == (400, "BadRequest")
        assert message.startswith("the request's body is not JSON: ")
        assert (await error("POST", "/v1/projects/shop/up", '{"x": 1}'))[:2] == (
            400,
            "ValidationError",
        )
        assert await error("GET", "/v1/nothing") == (
            404,
            "BadRequest",
            "GET /v1/nothing: not found",
        )
        async with client.put("/v1/version") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
            assert (await response.json())["error"]["message"].endswith("method not allowed")
        other = json.dumps({"project": {**DOCUMENT, "name": "other"}})
        assert (await error("POST", "/v1/projects/shop/up", other))[1] == "BadRequest"
        newer = json.dumps({"project": {**DOCUMENT, "version": 99}})
        assert (await error("POST", "/v1/projects/shop/up", newer))[:2] == (400, "CanonicalError")

    serve(tmp_path, ScriptedOperations(), body)


def test_a_run_streams_its_events_and_ends_with_the_result(tmp_path: Path) -> None:
    async def up(run: Run) -> dict[str, Any]:
        run.emit({"type": "plan", "empty": True})
        return {"type": "result", "ok": True}

    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        async with client.post("/v1/projects/shop/up", json={"project": DOCUMENT}) as response:
            assert response.content_type == "application/x-ndjson"
            lines = [json.loads(line) async for line in response.content]
        assert [line["type"] for line in lines] == ["plan", "result"]

    serve(tmp_path, ScriptedOperations(up), body)


def test_a_run_that_raises_ends_with_its_error(tmp_path: Path) -> None:
    async def up(run: Run) -> dict[str, Any]:
        raise UnknownService("wbe", ["web"])

    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        async with client.post("/v1/projects/shop/up", json={"project": DOCUMENT}) as response:
            (last,) = [json.loads(line) async for line in response.content]
        assert last == {
            "type": "result",
            "ok": False,
            "error": {
                "type": "UnknownService",
                "message": "no such service: wbe",
                "hint": "did you mean web",
                "exit_code": 1,
            },
            "exit_code": 1,
        }

    serve(tmp_path, ScriptedOperations(up), body)


def test_a_client_that_goes_away_cancels_its_run(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def up(run: Run) -> dict[str, Any]:
        run.emit({"type": "plan", "empty": False})
        await run.cancel.wait()
        ended.set()
        return {"type": "result", "ok": False}

    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        async with client.post("/v1/projects/shop/up", json={"project": DOCUMENT}) as response:
            assert json.loads(await response.content.readline())["type"] == "plan"
            response.close()
        await ended.wait()

    serve(tmp_path, ScriptedOperations(up), body)


def test_a_daemon_that_ends_waits_for_what_its_runs_are_doing(tmp_path: Path) -> None:
    steps: list[str] = []

    async def up(run: Run) -> dict[str, Any]:
        run.emit({"type": "plan", "empty": False})
        await run.cancel.wait()
        await asyncio.sleep(0)
        steps.append("the run has ended")
        return {"type": "result", "ok": False}

    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        async with client.post("/v1/projects/shop/up", json={"project": DOCUMENT}) as response:
            await response.content.readline()
            await instance.end_runs()
            steps.append("nothing runs")
            assert json.loads(await response.content.readline())["type"] == "result"

    serve(tmp_path, ScriptedOperations(up), body)
    assert steps == ["the run has ended", "nothing runs"]


def test_events_are_followed_by_project_until_the_daemon_ends(tmp_path: Path) -> None:
    def event(project: str) -> ContainerEvent:
        return ContainerEvent(
            project=project, at=0.0, action="die", id="c1", name="n", service="web"
        )

    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        async with client.get("/v1/events", params={"project": "shop", "follow": "1"}) as response:
            instance.host.bus.publish(event("other"))
            instance.host.bus.publish(event("shop"))
            told = json.loads(await response.content.readline())
            assert (told["project"], told["action"]) == ("shop", "die")
            assert told["time"] == "1970-01-01T00:00:00Z"
            instance.ending.set()
            assert await response.content.read() == b""

    serve(tmp_path, ScriptedOperations(), body)


def test_events_of_the_past_are_found_by_time_and_type_and_followed_without_a_gap(
    tmp_path: Path,
) -> None:
    def event(action: str, at: float) -> ContainerEvent:
        return ContainerEvent(
            project="shop", at=at, action=action, id="c1", name="n", service="web"
        )

    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        for at, action in enumerate(["create", "start", "die"]):
            instance.host.bus.publish(event(action, float(at)))

        async def actions(**query: str) -> list[str]:
            async with client.get("/v1/events", params=query) as response:
                return [json.loads(line)["action"] async for line in response.content]

        assert await actions() == ["create", "start", "die"]
        assert await actions(since="1") == ["start", "die"]
        assert await actions(until="1970-01-01T00:00:01Z", service="web") == ["create", "start"]
        assert await actions(type="network,image") == []
        async with client.get("/v1/events", params={"since": "2", "follow": "1"}) as response:
            assert json.loads(await response.content.readline())["action"] == "die"
            instance.host.bus.publish(event("restart", 3.0))
            assert json.loads(await response.content.readline())["action"] == "restart"
        async with client.get("/v1/events", params={"since": "soon"}) as response:
            assert response.status == 400

    serve(tmp_path, ScriptedOperations(), body)


def test_operations_are_kept_with_how_they_ended(tmp_path: Path) -> None:
    async def up(run: Run) -> dict[str, Any]:
        run.emit({"type": "plan", "empty": False, "steps": [{}, {}], "text": "two steps"})
        return {"type": "result", "ok": False, "error": {"type": "PortInUse", "message": "80"}}

    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        async with client.post("/v1/projects/shop/up", json={"project": DOCUMENT}) as response:
            await response.read()
        async with client.get("/v1/projects/shop/operations") as response:
            (told,) = await response.json()
        assert (told["command"], told["outcome"], told["error"]) == ("up", "failed", "80")
        assert told["steps"] == 2
        async with client.get("/v1/events", params={"type": "plan"}) as response:
            (plan,) = [json.loads(line) async for line in response.content]
        assert (plan["action"], plan["steps"]) == ("up", 2)

    serve(tmp_path, ScriptedOperations(up), body)


def test_revisions_differ_field_by_field_and_hide_what_is_secret(tmp_path: Path) -> None:
    def project(**environment: str) -> Project:
        service = {"image": "app", "environment": environment}
        return Project.from_canonical({**DOCUMENT, "services": {"web": service}})

    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        record_project(instance.host.store, project(MODE="a", DB_PASSWORD="old"))
        record_project(instance.host.store, project(MODE="b", DB_PASSWORD="new"))
        async with client.get("/v1/projects/shop/diff") as response:
            told = await response.json()
        assert (told["from"], told["to"]) == (1, 2)
        assert told["changes"] == [
            {"path": "services.web.environment.DB_PASSWORD", "hidden": True},
            {"path": "services.web.environment.MODE", "old": "a", "new": "b"},
        ]
        async with client.get("/v1/projects/shop/revisions/2") as response:
            shown = await response.json()
        assert shown["project"]["services"]["web"]["environment"]["MODE"] == "b"
        async with client.get("/v1/projects/shop/revisions/9") as response:
            assert (response.status, (await response.json())["error"]["type"]) == (
                404,
                "NoSuchRevision",
            )

    serve(tmp_path, ScriptedOperations(), body)


def test_every_route_is_described_with_its_body(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        async with client.get("/v1/openapi.json") as response:
            assert response.headers["Server"] == f"bayplan/{VERSION}"
            document = await response.json()
        described = {
            (method.upper(), path)
            for path, operations in document["paths"].items()
            for method in operations
        }
        for route in api.server(instance).routes:
            if route.method == "HEAD":
                continue
            # One that takes a word of several is described once for each.
            form = re.sub(r"\\{verb:[^{}]*\\}", "[a-z]+", re.escape(route.path))
            form = re.sub(r"(\\{[a-z_]+)[^{}]*\\}", r"\1\\}", form)
            assert any(
                method == route.method and re.fullmatch(form, path) for method, path in described
            ), route
        schemas = document["components"]["schemas"]
        up = document["paths"]["/v1/projects/{project}/up"]["post"]["requestBody"]
        name = up["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert "options" in schemas[name]["properties"]
        text = json.dumps(document)
        for reference in re.findall(r"#/components/schemas/(\w+)", text):
            assert reference in schemas

    serve(tmp_path, ScriptedOperations(), body)


def test_shutdown_is_answered_before_it_happens(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, instance: Instance) -> None:
        async with client.post("/v1/shutdown") as response:
            assert response.status == 200
        await instance.ending.wait()

    serve(tmp_path, ScriptedOperations(), body)
