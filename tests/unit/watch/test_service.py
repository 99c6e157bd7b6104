"""One service's loop: what it does first, what it leaves, and what it remembers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client.errors import ApiError
from orchestrator.engine.errors import ContainerGone
from orchestrator.engine.sync import Delete, Put, Synced
from orchestrator.watch import replicas as replicas_module
from orchestrator.watch.daemon import Request, Superseded
from orchestrator.watch.replicas import Replicas
from orchestrator.watch.rules import Action, Rule
from orchestrator.watch.service import Order, ServiceLoop
from orchestrator.watch.work import Work


class Yard:
    """Containers in memory, the daemon that has them, and what it was asked.

    `gate`, where it is set, is what a build waits for; `applying` what a sync waits for.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, str]] = {"c1": {}}
        self.asked: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.image: dict[str, str] = {}
        self.image_id = "i1"
        self.number = 1
        self.removed: list[str] = []
        self.failures: list[Exception] = []
        self.gate: threading.Event | None = None
        self.building = threading.Event()
        self.applying: threading.Event | None = None
        self.entered = threading.Event()

    # the daemon

    def containers(self, service: str) -> list[dict[str, Any]]:
        return [
            {"id": id, "name": f"web-{id}", "state": "running", "image_id": self.image_id}
            for id in self.files
        ]

    glance = containers

    def run(
        self, verb: str, body: dict[str, Any], request: Request, on_event: object = None
    ) -> None:
        self.asked.append(verb)
        if verb == "build":
            self.building.set()
            while self.gate is not None and not self.gate.wait(0.01):
                if request.cancelled.is_set():
                    raise Superseded
            if self.failures:
                raise self.failures.pop()
        if verb == "restart" and self.failures:
            raise self.failures.pop()
        if verb == "up":
            assert body["options"]["force_recreate"] and body["options"]["restart_dependents"]
            self.number += 1
            if self.image:
                self.image_id = f"i{self.number}"
            self.files = {f"c{self.number}": dict(self.image)}

    def remove_image(self, image: str) -> bool:
        self.removed.append(image)
        return True

    # reports

    def tell(self, event: str, service: str = "", **fields: Any) -> None:
        self.told.append({"event": event, **fields})

    def heard(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.told if one["event"] == event]

    # files of containers

    def open(self, root: Path, run: Path, id: str) -> YardFiles:
        return YardFiles(self, id)


class YardFiles:
    def __init__(self, yard: Yard, id: str) -> None:
        self._yard = yard
        self._id = id

    def _files(self) -> dict[str, str]:
        if self._id not in self._yard.files:
            raise ContainerGone(self._id)
        return self._yard.files[self._id]

    def apply(self, changes: Sequence[Put | Delete]) -> Synced:
        self._yard.entered.set()
        if self._yard.applying is not None:
            assert self._yard.applying.wait(30)
        files = self._files()
        for change in changes:
            if isinstance(change, Put):
                files[change.target] = change.source.read_text()
            else:
                files.pop(change.target, None)
        return Synced(written=len(changes))

    def differing(self, puts: Sequence[Put]) -> list[Put]:
        files = self._files()
        return [put for put in puts if files.get(put.target) != put.source.read_text()]


class Stage:
    """A service's loop on a yard; `save` and the like are what a person does."""

    def __init__(self, yard: Yard, directory: Path, *rules: Rule, writable: tuple[str, ...] = ()):
        self.yard = yard
        self.directory = directory
        self.loop = ServiceLoop(
            "web",
            Order(rules=rules, body={"project": {}}, writable=writable),
            daemon=yard,  # type: ignore[arg-type]  # the part of it that is used
            replicas=Replicas("web", yard, directory, directory),  # type: ignore[arg-type]
            report=yard,
            describe=lambda error: (str(error), None, 1),
            prune=True,
        )
        self.loop.start()

    def save(self, name: str, content: str, **fields: Any) -> Work:
        """Write a file and offer the work that comes of it."""
        path = self.directory / name
        path.write_text(content)
        work = Work(since=time.monotonic(), paths={str(path): None}, **fields)
        work.put(Put(source=path, target=f"/srv/{name}"))
        if fields:
            work.triggers[str(path)] = None
        self.loop.offer(work)
        return work

    def rebuild(self, **image: str) -> None:
        """Ask for a rebuild whose image holds these files."""
        self.yard.image = {f"/srv/{name}": content for name, content in image.items()}
        path = str(self.directory / "Dockerfile")
        self.loop.offer(
            Work(since=time.monotonic(), paths={path: None}, triggers={path: None}, rebuild=True)
        )

    def until(self, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not true():
            assert time.monotonic() < deadline, self.yard.told
            time.sleep(0.002)

    @property
    def content(self) -> dict[str, str]:
        (files,) = self.yard.files.values()
        return files


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> Yard:
    made = Yard()
    monkeypatch.setattr(replicas_module, "ContainerFiles", made.open)
    return made


@pytest.fixture
def stage(yard: Yard, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(yard, tmp_path)
    yield made
    made.loop.stop()


def test_a_sync_with_a_restart_restarts_once_and_tells_how_long_it_took(stage: Stage) -> None:
    stage.save("a", "1", restart=True)
    stage.until(lambda: stage.yard.heard("done"))

    (done,) = stage.yard.heard("done")
    assert (done["action"], done["count"]) == (Action.SYNC_RESTART, 1)
    assert 0 < done["seconds"] < 30
    assert stage.yard.asked == ["restart"]
    assert stage.content == {"/srv/a": "1"}


def test_what_comes_while_it_is_busy_becomes_one_piece_of_work(stage: Stage) -> None:
    stage.yard.applying = threading.Event()
    stage.save("a", "1", restart=True)
    assert stage.yard.entered.wait(30)
    for number in range(20):
        stage.save("a", str(number), restart=True)
        stage.save(f"b{number}", "x")
    stage.yard.applying.set()
    stage.until(lambda: len(stage.yard.heard("done")) == 2)

    assert stage.yard.asked == ["restart", "restart"]
    assert stage.content["/srv/a"] == "19"
    assert len(stage.content) == 21


def test_a_rebuild_puts_an_end_to_a_sync_and_nothing_of_it_is_lost(stage: Stage) -> None:
    stage.yard.applying = threading.Event()
    many = Work(since=time.monotonic())
    for number in range(1000):
        path = stage.directory / f"f{number}"
        path.write_text(str(number))
        many.put(Put(source=path, target=f"/srv/f{number}"))
    stage.loop.offer(many)
    assert stage.yard.entered.wait(30)
    stage.rebuild(f0="0", built="yes")
    stage.yard.applying.set()
    stage.until(lambda: [d for d in stage.yard.heard("done") if d["action"] == Action.REBUILD])

    assert stage.yard.asked == ["build", "up"]
    assert len(stage.content) == 1001
    assert [done["action"] for done in stage.yard.heard("done")].count(Action.REBUILD) == 1


def test_a_newer_rebuild_ends_the_older_build(stage: Stage) -> None:
    stage.yard.gate = threading.Event()
    stage.rebuild(a="old")
    assert stage.yard.building.wait(30)
    stage.yard.building.clear()
    stage.rebuild(a="new")
    assert stage.yard.building.wait(30)
    stage.yard.gate.set()
    stage.until(lambda: stage.yard.heard("done"))

    assert stage.yard.asked == ["build", "build", "up"]
    assert stage.content == {"/srv/a": "new"}
    assert stage.yard.removed == ["i1"]


def test_a_file_saved_during_a_build_is_in_the_container_that_comes_of_it(stage: Stage) -> None:
    stage.yard.gate = threading.Event()
    stage.rebuild(a="1")
    assert stage.yard.building.wait(30)
    stage.save("a", "2")
    stage.yard.gate.set()
    stage.until(lambda: stage.content == {"/srv/a": "2"})

    assert stage.yard.asked == ["build", "up"]


def test_a_build_that_fails_is_told_with_what_runs_and_the_next_one_has_it_all(
    stage: Stage,
) -> None:
    stage.yard.failures.append(ApiError("BuildError", "line 3: no", hint=None, exit_code=1))
    stage.rebuild(a="1")
    stage.until(lambda: stage.yard.heard("failed"))
    (failed,) = stage.yard.heard("failed")
    assert failed["action"] is Action.REBUILD
    assert failed["message"] == "line 3: no"
    assert failed["running"] == "web-c1 still runs as before"

    stage.save("b", "2")
    stage.until(lambda: stage.content == {"/srv/b": "2"})
    stage.rebuild(a="3")
    stage.until(lambda: stage.content == {"/srv/a": "3", "/srv/b": "2"})


def test_a_container_is_new_and_has_what_was_synced_also_where_the_image_is_the_same(
    stage: Stage,
) -> None:
    stage.save("a", "1")
    stage.until(lambda: stage.content)
    stage.rebuild()
    stage.until(lambda: len(stage.yard.heard("done")) == 3)

    assert stage.yard.heard("done")[-1]["detail"] == "the image is as it was"
    assert stage.yard.removed == []
    assert stage.yard.files == {"c2": {"/srv/a": "1"}}


def test_a_container_that_is_new_gets_what_was_synced_before(stage: Stage) -> None:
    stage.save("a", "1")
    stage.save("b", "1", restart=True)
    stage.until(lambda: len(stage.content) == 2)
    stage.yard.files["c9"] = {"/srv/a": "1"}
    restarts = stage.yard.asked.count("restart")
    stage.loop.look()

    stage.until(lambda: stage.yard.files["c9"] == {"/srv/a": "1", "/srv/b": "1"})
    stage.until(lambda: stage.yard.asked.count("restart") == restarts + 1)


def test_one_that_is_gone_is_left_out(stage: Stage) -> None:
    stage.until(lambda: not stage.yard.heard("done"))
    stage.save("a", "1")
    stage.until(lambda: stage.yard.heard("done"))
    stage.yard.files = {"c2": {}}
    stage.save("b", "1")
    stage.until(lambda: len(stage.yard.heard("done")) == 2)

    assert not stage.yard.heard("failed")
    stage.loop.look()
    stage.until(lambda: stage.content == {"/srv/a": "1", "/srv/b": "1"})


def test_a_first_sync_comes_before_everything_else(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("1")
    rule = Rule(
        service="web",
        action=Action.SYNC_RESTART,
        path=str(tmp_path / "src" / "a"),
        target="/srv/a",
        initial_sync=True,
        origin="here",
    )
    stage = Stage(yard, tmp_path, rule)
    stage.until(lambda: yard.heard("done"))
    stage.loop.stop()

    assert yard.files == {"c1": {"/srv/a": "1"}}
    assert yard.asked == ["restart"]
    assert yard.heard("done")[0]["detail"] == "a first sync"


def test_a_fault_of_any_kind_is_told_and_the_loop_goes_on(stage: Stage) -> None:
    stage.yard.failures.append(RuntimeError("unheard of"))
    stage.rebuild(a="1")
    stage.until(lambda: stage.yard.heard("failed"))
    stage.save("a", "2")
    stage.until(lambda: stage.yard.heard("done"))

    assert stage.yard.heard("failed")[0]["message"] == "unheard of"


def test_stopping_leaves_a_build_at_once(stage: Stage) -> None:
    stage.yard.gate = threading.Event()
    stage.rebuild(a="1")
    assert stage.yard.building.wait(30)
    stage.loop.stop()

    assert stage.yard.asked == ["build"]
    assert not stage.yard.heard("failed")


def write_after_each_restart(stage: Stage, path: str, told: Callable[[], int]) -> None:
    """Change a file each time that `told` counts one more, until that is put off."""
    for number in range(4):
        stage.loop.offer(
            Work(since=time.monotonic(), paths={path: None}, triggers={path: None}, restart=True)
        )
        stage.until(lambda number=number: told() > number or stage.yard.heard("held"))  # type: ignore[misc]
    stage.until(lambda: stage.yard.heard("held"))
    stage.loop.stop()


def test_what_the_service_writes_itself_is_put_off_and_said(yard: Yard, tmp_path: Path) -> None:
    stage = Stage(yard, tmp_path, writable=(str(tmp_path),))
    write_after_each_restart(stage, f"{tmp_path}/db", lambda: len(yard.asked))

    assert f"{tmp_path} changes whenever web does" in yard.heard("held")[0]["message"]


def test_what_it_writes_in_a_restart_that_fails_is_put_off_as_well(
    yard: Yard, tmp_path: Path
) -> None:
    yard.failures = [RuntimeError("too late") for _ in range(9)]
    stage = Stage(yard, tmp_path, writable=(str(tmp_path),))
    write_after_each_restart(stage, f"{tmp_path}/db", lambda: len(yard.heard("failed")))

    assert not yard.heard("done")
