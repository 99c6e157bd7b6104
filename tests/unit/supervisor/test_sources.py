"""All sources of an instance: what people ask of them, and who is woken by what."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.engine.events import ContainerEvent, Event, EventBus, GitopsEvent
from orchestrator.engine.gitops_table import Attempt, Passage
from orchestrator.engine.store import Store
from orchestrator.gitops.mirror import Revision
from orchestrator.gitops.source import GitSource
from orchestrator.planning.plan import Plan
from orchestrator.supervisor.attempts import Told
from orchestrator.supervisor.errors import BadRequest
from orchestrator.supervisor.operations import Run, result
from orchestrator.supervisor.sources import (
    NoSuchPassage,
    NoSuchSource,
    SourceKeeper,
    SourceSuspended,
)

SPEC = {"name": "shop", "services": {"web": {"image": "app"}}}


class Repository:
    """Always at commit `a…`, with one project."""

    head = "a" * 40

    def __init__(self, source: GitSource) -> None:
        self.source = source
        self.removed: list[bool] = []

    async def probe(self) -> str:
        return self.head

    async def fetch(self, *, accept_rewrite: bool) -> Revision:
        return Revision(commit=self.head, ref="main", subject="", author="", committed_at=0.0)

    async def render(self, commit: str) -> Mapping[str, Any]:
        return {self.source.name: {**SPEC, "name": self.source.name}}

    async def recall(self, commit: str, projects: Mapping[str, Any]) -> None:
        """Nothing is secret."""

    async def switch(self, commit: str, projects: Mapping[str, Any]) -> None:
        """Nothing is bound."""

    async def retain(self, kept: Mapping[str, Any]) -> None:
        """Nothing is let go."""

    async def log(self, since: str | None, until: str) -> list[Revision]:
        return []

    async def remove(self, *, tree: bool) -> None:
        self.removed.append(tree)


class Stacks:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.deviating = False

    async def up(self, spec: Any, policy: Any, run: Run) -> dict[str, Any]:
        self.log.append(f"up {spec['name']}")
        self.deviating = False
        return result(None)

    async def down(self, name: str, services: Any, run: Run) -> dict[str, Any]:
        self.log.append(f"down {name}")
        return result(None)

    async def prove(self, spec: Any, since: float, timeout: float, run: Run) -> dict[str, Any]:
        return result(None)

    async def plan(self, spec: Any, policy: Any) -> Plan:
        return Plan(project=spec["name"])

    async def deviates(self, spec: Any, policy: Any) -> bool:
        return self.deviating


class Bench:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.table = store.gitops
        self.bus = EventBus()
        self.stacks = Stacks()
        self.repositories: dict[str, Repository] = {}
        self.noted: list[Told] = []
        self.events: list[Event] = []
        host = SimpleNamespace(store=store, bus=self.bus)

        def open_repository(source: GitSource) -> Repository:
            return self.repositories.setdefault(source.name, Repository(source))

        async def notify(source: GitSource, told: Told) -> None:
            self.noted.append(told)

        self.keeper = SourceKeeper(
            cast(Any, host), self.stacks, open_repository, notify, random.Random(1)
        )

    async def add(self, name: str, **settings: Any) -> None:
        await self.keeper.add(
            GitSource(name=name, url=f"https://example.org/{name}.git", **settings)
        )

    async def rest(self, name: str) -> None:
        await self.keeper.syncer(name).outlook.answered(self.keeper.poke(name))

    def outcome(self, name: str) -> str:
        last = self.keeper.record(name).attempted
        return last.outcome if last is not None else ""

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.01)


def run(tmp_path: Path, body: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        with Store(tmp_path) as store:
            bench = Bench(store)
            with bench.bus.listen(bench.events.append):
                await bench.keeper.open()
                working = asyncio.create_task(bench.keeper.run())
                try:
                    await asyncio.wait_for(body(bench), 30)
                finally:
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)

    asyncio.run(main())


def test_a_source_is_taken_on_and_known_to_the_next_daemon(tmp_path: Path) -> None:
    async def first(bench: Bench) -> None:
        await bench.add("shop")
        await bench.rest("shop")
        assert bench.outcome("shop") == "applied" and bench.stacks.log == ["up shop"]
        assert [e.action for e in bench.events if isinstance(e, GitopsEvent)] == ["applied"]
        await bench.until(lambda: [told.action for told in bench.noted] == ["applied"])

    async def second(bench: Bench) -> None:
        await bench.rest("shop")
        assert bench.stacks.log == [] and bench.outcome("shop") == "applied"

    run(tmp_path, first)
    run(tmp_path, second)


def test_a_cycle_of_dependencies_is_refused_along_its_way(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.add("a", dependsOn=["c"])
        await bench.add("b", dependsOn=["a"])
        with pytest.raises(BadRequest, match="would wait for itself: a -> c -> b -> a"):
            await bench.add("c", dependsOn=["b"])
        assert bench.table.get("c") is None
        await bench.rest("a")
        assert bench.outcome("a") == ""

    run(tmp_path, body)


def test_what_waits_goes_on_when_the_other_is_ready(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.add("app", dependsOn=["base"])
        await bench.rest("app")
        assert bench.outcome("app") == "" and bench.keeper.syncer("app").sight.unready == ("base",)
        await bench.add("base")
        await bench.until(lambda: bench.outcome("app") == "applied")

    run(tmp_path, body)


def test_a_held_source_refuses_a_sync_and_says_what_to_do(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.add("shop", suspend=True)
        with pytest.raises(SourceSuspended, match="is suspended"):
            await bench.keeper.sync("shop", force=False)
        assert bench.stacks.log == []
        bench.keeper.resume("shop")
        await bench.rest("shop")
        assert bench.outcome("shop") == "applied"
        # The same file once more changes nothing of what a person has said since.
        await bench.add("shop", suspend=True)
        assert not bench.keeper.record("shop").suspended
        with pytest.raises(NoSuchSource):
            bench.keeper.suspend("nobody")

    run(tmp_path, body)


def test_forcing_applies_once_more(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.add("shop")
        await bench.rest("shop")
        await bench.keeper.syncer("shop").outlook.answered(
            await bench.keeper.sync("shop", force=True)
        )
        assert bench.stacks.log == ["up shop", "up shop"]

    run(tmp_path, body)


def test_a_revision_is_found_by_number_commit_or_as_the_one_before(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.add("shop", suspend=True)
        await bench.rest("shop")
        for commit in ("1111aaaa", "2222bbbb", "3333cccc"):
            passage = Passage(
                source="shop", commit=commit, at=0.0, outcome="applied", projects={"shop": SPEC}
            )
            bench.table.succeed(passage, "d")
        bench.table.fail(Passage(source="shop", commit="4444dddd", at=0.0, outcome="failed"), "d")
        roll = bench.keeper.rollback
        assert (await roll("shop", None)).commit == "2222bbbb"
        for word in ("1", "1111", "1111aaaa"):
            assert (await roll("shop", word)).number == 1
        for word in ("9", "4444dddd", "111", "nothing"):
            with pytest.raises(NoSuchPassage, match="to go back to"):
                await roll("shop", word)

    run(tmp_path, body)


def test_removing_takes_down_what_is_owned_or_leaves_it(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        for name in ("one", "two"):
            await bench.add(name)
            await bench.rest(name)
        quiet = Run(emit=lambda event: None, cancel=asyncio.Event())
        await bench.keeper.remove("one", keep=False, run=quiet)
        await bench.keeper.remove("two", keep=True, run=quiet)
        assert bench.stacks.log[2:] == ["down one"]
        assert bench.repositories["one"].removed == [True]
        assert bench.repositories["two"].removed == [False]
        assert bench.table.all() == [] and bench.table.inventory() == []
        with pytest.raises(NoSuchSource):
            bench.keeper.poke("one")

    run(tmp_path, body)


def test_a_project_that_is_let_go_is_taken_up_by_who_wanted_it(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        attempt = Attempt(commit="z", source="d", at=0.0, outcome="applying")
        await bench.add("other", suspend=True)
        bench.table.begin("other", attempt, {"shop": SPEC})
        await bench.add("shop")
        await bench.rest("shop")
        assert bench.outcome("shop") == "failed"
        quiet = Run(emit=lambda event: None, cancel=asyncio.Event())
        await bench.keeper.remove("other", keep=True, run=quiet)
        await bench.until(lambda: bench.outcome("shop") == "applied")

    run(tmp_path, body)


def test_a_change_of_an_owned_project_has_its_source_look(tmp_path: Path) -> None:
    def changed(project: str, action: str) -> ContainerEvent:
        return ContainerEvent(
            project=project, at=0.0, action=action, id="c", name="n", service="web"
        )

    async def body(bench: Bench) -> None:
        await bench.add("shop")
        await bench.rest("shop")
        bench.stacks.deviating = True
        bench.bus.publish(changed("foreign", "destroy"))
        bench.bus.publish(changed("shop", "health_status"))
        assert not bench.keeper.syncer("shop").sight.suspect
        bench.bus.publish(changed("shop", "destroy"))
        await bench.until(lambda: bench.stacks.log == ["up shop", "up shop"])
        await bench.until(lambda: bench.noted[-1].action == "drift")

    run(tmp_path, body)
