"""One source at work on a repository and stacks of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engine.gitops_table import GitopsTable, SourceRecord
from orchestrator.engine.store import Store
from orchestrator.gitops.errors import (
    GitOpsError,
    HistoryRewritten,
    HostFailed,
    RefNotFound,
    RenderFailed,
    Unreachable,
)
from orchestrator.gitops.mirror import Revision
from orchestrator.gitops.source import GitSource
from orchestrator.planning.plan import Plan
from orchestrator.planning.policy import Policy
from orchestrator.supervisor.attempts import Told
from orchestrator.supervisor.operations import Run, result
from orchestrator.supervisor.syncing import Syncer

Spec = Mapping[str, Any]


def spec(name: str, *services: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "services": {service: {"image": "app"} for service in services}, **more}


class FakeRepository:
    """`commits` maps each commit to its projects, or to the error that rendering it raises."""

    def __init__(self) -> None:
        self.commits: dict[str, list[Spec] | GitOpsError] = {}
        self.head = ""
        self.error: GitOpsError | None = None
        self.rewritten: HistoryRewritten | None = None
        self.probes = 0
        self.recalled: list[str] = []
        self.switched: list[str] = []
        self.retained: list[str] = []

    def push(self, commit: str, *projects: Spec, error: GitOpsError | None = None) -> None:
        self.commits[commit] = error or list(projects)
        self.head = commit

    async def probe(self) -> str:
        self.probes += 1
        if self.error is not None:
            raise self.error
        return self.head

    async def fetch(self, *, accept_rewrite: bool) -> Revision:
        if self.rewritten is not None and not accept_rewrite:
            raise self.rewritten
        return Revision(
            commit=self.head,
            ref="refs/heads/main",
            subject=f"subject of {self.head}",
            author="a",
            committed_at=0.0,
        )

    async def render(self, commit: str) -> dict[str, Spec]:
        found = self.commits[commit]
        if isinstance(found, GitOpsError):
            raise found
        return {project["name"]: project for project in found}

    async def recall(self, commit: str, projects: Mapping[str, Spec]) -> None:
        self.recalled.append(commit)

    async def switch(self, commit: str, projects: Mapping[str, Spec]) -> None:
        self.switched.append(commit)

    async def retain(self, kept: Mapping[str, Any]) -> None:
        self.retained = list(kept)

    async def log(self, since: str | None, until: str) -> Sequence[Revision]:
        return []

    async def remove(self, *, tree: bool) -> None:
        self.commits.clear()


def failed(message: str, type: str = "WaitFailed") -> dict[str, Any]:
    error = {"type": type, "message": message, "hint": None, "exit_code": 1}
    return {"type": "result", "ok": False, "error": error, "exit_code": 1}


class FakeStacks:
    """A world of dictionaries: `standing` has the services of each project by name."""

    def __init__(self) -> None:
        self.standing: dict[str, Spec] = {}
        self.log: list[str] = []
        self.sick: set[str] = set()
        self.stuck: set[str] = set()
        self.proof: Callable[[Run], Awaitable[dict[str, Any]]] | None = None

    async def up(self, spec: Spec, policy: Policy, run: Run) -> dict[str, Any]:
        name = spec["name"]
        self.log.append(f"up {name}")
        run.emit({"type": "plan", "text": f"up {name}", "empty": False})
        before = self.standing.get(name, {"services": {}})["services"]
        stays = {s: d for s, d in before.items() if s not in policy.departed}
        self.standing[name] = {**spec, "services": {**stays, **spec["services"]}}
        return result(None)

    async def down(self, name: str, services: Collection[str], run: Run) -> dict[str, Any]:
        self.log.append(f"down {name}")
        if name in self.stuck:
            return failed(f"{name} is in use", "InUse")
        self.standing.pop(name, None)
        return result(None)

    async def prove(self, spec: Spec, since: float, timeout: float, run: Run) -> dict[str, Any]:
        if self.proof is not None:
            return await self.proof(run)
        sick = self.sick & set(self.standing[spec["name"]]["services"])
        return failed(f"{sorted(sick)} is unhealthy") if sick else result(None)

    async def plan(self, spec: Spec, policy: Policy) -> Plan:
        return Plan(project=spec["name"])

    async def deviates(self, spec: Spec, policy: Policy) -> bool:
        return self.standing.get(spec["name"]) != spec


class Bench:
    """A syncer with everything that it works with."""

    def __init__(self, table: GitopsTable, **settings: Any) -> None:
        self.table = table
        self.source = GitSource(name="shop", url="https://example.org/shop.git", **settings)
        self.repository = FakeRepository()
        self.stacks = FakeStacks()
        self.told: list[Told] = []
        self.unready: tuple[str, ...] = ()
        self.define(self.source)

    def define(self, source: GitSource) -> None:
        self.source = source
        self.table.put(
            source.name, source.canonical(), source.digest(), suspended=source.suspend, now=0.0
        )
        self.restart()

    def restart(self) -> None:
        """Go on as the next daemon would."""
        self.syncer = Syncer(
            self.source,
            self.table,
            self.repository,
            self.stacks,
            self.told.append,
            lambda source: self.unready,
        )

    async def look(self) -> float | None:
        self.syncer.outlook.want()
        return await self.syncer.attend()

    @property
    def record(self) -> SourceRecord:
        found = self.table.get("shop")
        assert found is not None
        return found

    def settled(self) -> bool:
        return self.record.settled

    def outcome(self) -> tuple[str, str]:
        """What was tried last, and how it ended."""
        last = self.record.attempted
        return (last.commit, last.outcome) if last is not None else ("", "")

    def actions(self) -> list[str]:
        return [told.action for told in self.told]


def run(tmp_path: Path, body: Callable[[Bench], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        with Store(tmp_path) as store:
            await asyncio.wait_for(body(Bench(store.gitops, **settings)), 30)

    asyncio.run(main())


def test_a_commit_is_applied_proved_and_kept(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"), spec("two", "web"))
        again = await bench.look()
        assert again is not None and again > 50
        assert bench.outcome() == ("a", "applied")
        assert bench.stacks.log == ["up one", "up two"]
        assert bench.record.applied is not None and bench.settled()
        assert bench.repository.retained == ["a"]
        assert bench.repository.switched[0] == "a"
        (told,) = bench.told
        assert (told.action, told.subject) == ("applied", "subject of a")

    run(tmp_path, body)


def test_what_is_unhealthy_is_taken_back_told_once_and_not_tried_again(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        bench.stacks.sick = {"cache"}
        bench.repository.push("b", spec("one", "web", "cache"), spec("two", "job"))
        await bench.look()
        assert bench.outcome() == ("b", "rolled-back")
        assert bench.stacks.standing == {"one": spec("one", "web")}
        assert bench.repository.switched[-1] == "a"
        assert bench.actions() == ["applied", "reverting", "rolled-back"]
        assert bench.record.applied is not None and bench.record.applied.commit == "a"
        assert bench.repository.retained == ["a"]
        before = list(bench.stacks.log)
        for _ in range(3):
            await bench.look()
        bench.restart()
        await bench.look()
        assert bench.stacks.log == before and len(bench.told) == 3
        bench.stacks.sick = set()
        bench.table.reopen("shop")
        await bench.look()
        assert bench.outcome() == ("b", "applied")

    run(tmp_path, body)


def test_what_cannot_be_rendered_changes_nothing(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        bench.repository.push("b", error=RenderFailed("compose.yaml:1: wrong", hint="mend it"))
        await bench.look()
        last = bench.record.attempted
        assert last is not None and (last.outcome, last.reason) == ("failed", "RenderFailed")
        assert last.message == "compose.yaml:1: wrong\nhint: mend it"
        assert bench.stacks.log == ["up one"] and bench.repository.switched == ["a", "a"]

    run(tmp_path, body)


def test_a_first_commit_that_fails_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.stacks.sick = {"web"}
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        assert bench.outcome() == ("a", "failed") and bench.record.applied is None
        assert bench.actions() == ["failed"]

    run(tmp_path, body)


def test_an_unreachable_repository_is_asked_again_soon_and_told_of_once(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        bench.repository.error = Unreachable("no answer")
        again = await bench.look()
        assert again is not None and again <= 2.0
        await bench.look()
        assert bench.actions() == ["applied", "failed"]
        assert bench.syncer.sight.failures == 2 and bench.outcome() == ("a", "applied")
        bench.repository.error = RefNotFound("no such branch")
        again = await bench.look()
        assert again is not None and again > 30
        bench.repository.error = None
        await bench.look()
        assert bench.syncer.sight.failures == 0 and bench.syncer.sight.message == ""

    run(tmp_path, body)


def test_a_registry_that_cannot_be_reached_says_nothing_against_the_commit(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        up = bench.stacks.up

        async def unreachable(spec: Spec, policy: Policy, run: Run) -> dict[str, Any]:
            ended = failed("pull app: no connection", "ImageError")
            ended["error"] |= {"transient": True, "reason": "Unreachable"}
            return ended

        bench.stacks.up = unreachable  # type: ignore[method-assign]
        bench.repository.push("b", spec("one", "web", "db"))
        again = await bench.look()
        assert again is not None and again <= 2.0
        assert bench.settled() and bench.outcome() == ("b", "applying")
        assert bench.syncer.sight.setback == "project one: pull app: no connection"
        assert bench.actions() == ["applied", "failed"]
        bench.stacks.up = up  # type: ignore[method-assign]
        bench.restart()
        await bench.look()
        assert bench.outcome() == ("b", "applied") and bench.syncer.sight.setback == ""

    run(tmp_path, body)


def test_a_message_of_any_length_is_kept_in_part(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", error=RenderFailed("x" * 10**6, hint="write less"))
        await bench.look()
        last = bench.record.attempted
        assert last is not None and len(last.message) < 5000
        assert last.message.endswith("…\nhint: write less")

    run(tmp_path, body)


def test_a_full_disk_says_nothing_against_the_commit(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        bench.repository.push("b", spec("one", "db"), error=HostFailed("render b: no room"))
        await bench.look()
        assert bench.outcome() == ("a", "applied")
        assert bench.syncer.sight.setback == "render b: no room"
        assert bench.told[-1].reason == "HostFailed"
        bench.repository.push("b", spec("one", "db"))
        bench.restart()
        await bench.look()
        assert bench.outcome() == ("b", "applied") and bench.syncer.sight.setback == ""

    run(tmp_path, body)


def test_a_rewritten_history_is_refused_until_a_person_accepts_it(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("b", spec("one", "web"))
        bench.repository.rewritten = HistoryRewritten("main", "a", "b")
        await bench.look()
        last = bench.record.attempted
        assert last is not None and (last.commit, last.reason) == ("b", "HistoryRewritten")
        bench.table.reopen("shop")
        bench.syncer.accept_rewrite = True
        await bench.look()
        assert bench.outcome() == ("b", "applied")

    run(tmp_path, body)


def test_nothing_is_left_is_refused_unless_that_is_allowed(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        bench.repository.push("b")
        await bench.look()
        last = bench.record.attempted
        assert last is not None and last.reason == "WouldRemoveAll"
        assert "one" in bench.stacks.standing
        async with bench.syncer.held():
            bench.define(bench.source.model_copy(update={"allow_empty": True}))
        await bench.look()
        assert bench.outcome() == ("b", "applied") and not bench.stacks.standing
        assert bench.table.inventory("shop") == []

    run(tmp_path, body)


def test_what_cannot_be_removed_stays_in_the_inventory_and_is_tried_again(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"), spec("two", "web"))
        await bench.look()
        bench.stacks.stuck = {"two"}
        bench.repository.push("b", spec("one", "web"))
        again = await bench.look()
        assert again is not None and again <= 2.0
        assert bench.outcome() == ("b", "applied") and not bench.settled()
        held = {b.project: b.error for b in bench.table.inventory("shop")}
        assert held == {"one": "", "two": "project two: two is in use"}
        assert bench.syncer.sight.trouble == "project two: two is in use"
        bench.stacks.stuck = set()
        bench.restart()
        await bench.look()
        assert [b.project for b in bench.table.inventory("shop")] == ["one"]
        assert bench.settled() and "two" not in bench.stacks.standing

    run(tmp_path, body)


def test_without_prune_what_leaves_is_left(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web", "db"), spec("two", "web"))
        await bench.look()
        bench.repository.push("b", spec("one", "web"))
        await bench.look()
        assert bench.outcome() == ("b", "applied") and bench.settled()
        assert set(bench.stacks.standing) == {"one", "two"}

    run(tmp_path, body, prune=False)


def test_a_project_that_is_in_the_way_goes_before_the_new_one_comes(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        named = {"services": {"web": {"container_name": "front"}}}
        bench.repository.push("a", {"name": "old", **named})
        await bench.look()
        bench.repository.push("b", {"name": "new", **named})
        await bench.look()
        assert bench.stacks.log == ["up old", "down old", "up new", "down old"]
        assert bench.settled()
        assert [b.project for b in bench.table.inventory("shop")] == ["new"]

    run(tmp_path, body)


def test_a_newer_commit_ends_the_wait_for_health(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        waiting = asyncio.Event()

        async def proof(run: Run) -> dict[str, Any]:
            waiting.set()
            await run.cancel.wait()
            bench.stacks.proof = None
            return failed("canceled", "Canceled")

        bench.stacks.proof = proof
        bench.repository.push("b", spec("one", "web", "slow"))
        looking = asyncio.create_task(bench.look())
        await waiting.wait()
        bench.repository.push("c", spec("one", "web", "quick"))
        bench.syncer.outlook.want()
        await looking
        assert bench.outcome() == ("c", "applied")
        assert bench.actions() == ["applied", "superseded", "applied"]
        assert set(bench.stacks.standing["one"]["services"]) == {"web", "quick"}

    run(tmp_path, body)


def test_a_daemon_that_is_killed_anywhere_leaves_what_the_next_one_ends(tmp_path: Path) -> None:
    """Every call of the outside world is, in turn, the last one of its daemon."""

    class Killed(BaseException):
        pass

    async def history(bench: Bench, fatal: int) -> int:
        """Go through commits and die at the call of this number; gives how many there were."""
        count = 0

        def dying(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def wrapped(*args: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == fatal:
                    raise Killed
                outcome = await call(*args, **options)
                count += 1
                if count == fatal:
                    raise Killed
                return outcome

            return wrapped

        for owner, names in (
            (bench.stacks, ("up", "down", "prove", "deviates")),
            (bench.repository, ("probe", "fetch", "render", "switch", "retain")),
        ):
            for name in names:
                setattr(owner, name, dying(getattr(owner, name)))
        bench.stacks.sick = {"bad"}
        pushes: list[tuple[str, list[Spec]]] = [
            ("a", [spec("one", "web"), spec("two", "web")]),
            ("b", [spec("one", "web", "bad"), spec("three", "web")]),
            ("c", [spec("one", "site")]),
        ]
        for commit, projects in pushes:
            bench.repository.push(commit, *projects)
            try:
                await bench.look()
            except Killed:
                bench.restart()
                await bench.look()
            wanted = {"a": ("a", "applied"), "b": ("b", "rolled-back"), "c": ("c", "applied")}
            assert bench.outcome() == wanted[commit], (fatal, commit)
            stands = dict(pushes)["a" if commit == "b" else commit]
            assert bench.stacks.standing == {p["name"]: p for p in stands}, (fatal, commit)
            inventory = [b.project for b in bench.table.inventory("shop")]
            assert inventory == sorted(bench.stacks.standing) and bench.settled()
        return count

    async def body(bench: Bench) -> None:
        calls = await history(bench, 0)
        assert calls > 20
        for fatal in range(1, calls + 1):
            bench.table.remove("shop")
            await history(Bench(bench.table), fatal)

    run(tmp_path, body)


def test_what_others_change_is_put_back_and_told(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        bench.stacks.standing["one"] = spec("one", "web", "other")
        bench.stacks.standing["foreign"] = spec("foreign", "web")
        bench.syncer.outlook.suspect()
        await bench.syncer.attend()
        assert bench.stacks.log == ["up one", "up one"]
        assert bench.actions() == ["applied", "drift"]
        assert "foreign" in bench.stacks.standing

    run(tmp_path, body)


def test_a_dry_source_only_tells(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        await bench.look()
        assert bench.outcome() == ("a", "planned") and bench.stacks.log == []
        assert [(told.action, told.plan) for told in bench.told] == [
            ("planned", "one: nothing to do")
        ]
        assert bench.table.inventory("shop") == []

    run(tmp_path, body, dryRun=True)


def test_a_return_stays_until_it_is_resumed(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        for commit, service in (("a", "old"), ("b", "new")):
            bench.repository.push(commit, spec("one", service))
            await bench.look()
        bench.table.update("shop", pinned=1)
        await bench.look()
        assert bench.stacks.standing["one"] == spec("one", "old")
        assert bench.repository.switched[-1] == "a"
        bench.repository.push("c", spec("one", "newest"))
        await bench.look()
        assert bench.stacks.standing["one"] == spec("one", "old")
        bench.table.update("shop", pinned=None)
        await bench.look()
        assert bench.outcome() == ("c", "applied")

    run(tmp_path, body)


def test_a_return_that_fails_goes_back_to_where_it_came_from(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        for commit, service in (("a", "old"), ("b", "new")):
            bench.repository.push(commit, spec("one", service))
            await bench.look()
        bench.stacks.sick = {"old"}
        bench.table.update("shop", pinned=1)
        await bench.look()
        assert bench.outcome() == ("a", "rolled-back")
        assert bench.stacks.standing["one"] == spec("one", "new")
        assert bench.record.applied is not None
        assert bench.record.pinned == bench.record.applied.number

    run(tmp_path, body)


def test_a_project_of_another_source_is_refused_by_name(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.table.put("other", {}, "d", suspended=False, now=0.0)
        from orchestrator.engine.gitops_table import Attempt

        attempt = Attempt(commit="z", source="d", at=0.0, outcome="applying")
        bench.table.begin("other", attempt, {"one": spec("one", "web")})
        bench.repository.push("a", spec("one", "web"))
        await bench.look()
        last = bench.record.attempted
        assert last is not None and last.reason == "Claimed"
        assert "belongs to source other" in last.message
        assert bench.stacks.log == []

    run(tmp_path, body)


def test_whoever_asked_for_a_look_is_answered_when_it_has_come_to_a_rest(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        events: list[dict[str, Any]] = []
        number = bench.syncer.outlook.want()
        with bench.syncer.followed(events.append):
            waiting = asyncio.create_task(bench.syncer.outlook.answered(number))
            await bench.syncer.attend()
            await waiting
        assert [event["type"] for event in events] == ["plan"]
        bench.table.update("shop", suspended=True)
        number = bench.syncer.outlook.want()
        await bench.syncer.attend()
        await bench.syncer.outlook.answered(number)

    run(tmp_path, body)


def test_whoever_waits_is_answered_when_something_unforeseen_happens(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        render = bench.repository.render

        async def full(commit: str) -> dict[str, Spec]:
            raise OSError(28, "no space left on device")

        bench.repository.render = full  # type: ignore[method-assign]
        number = bench.syncer.outlook.want()
        with pytest.raises(OSError, match="no space left"):
            await bench.syncer.attend()
        await bench.syncer.outlook.answered(number)
        assert "no space left" in bench.syncer.sight.trouble
        bench.repository.render = render  # type: ignore[method-assign]
        await bench.look()
        assert bench.outcome() == ("a", "applied") and bench.syncer.sight.trouble == ""

    run(tmp_path, body)


def test_a_source_that_is_held_begins_nothing(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.repository.push("a", spec("one", "web"))
        async with bench.syncer.held():
            looking = asyncio.create_task(bench.look())
            await asyncio.sleep(0)
            assert bench.stacks.log == [] and bench.repository.probes == 0
        await looking
        assert bench.outcome() == ("a", "applied")

    run(tmp_path, body)
