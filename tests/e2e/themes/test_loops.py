"""Themes 16, 17 and 21: what follows files and repositories neither loops nor gets stuck."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.gitops.conftest import Source, git
from tests.e2e.watched import Watched, watch

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

Project = Callable[..., Path]
Ids = Callable[[Path], dict[str, str]]

_SERVICE = "image: busybox, init: true, stop_grace_period: 0s"


def test_theme_16_a_batch_of_changes_is_one_action_a_service_and_ended_ones_get_it_too(
    bay: Bay, project: Project
) -> None:
    rule = "{action: sync+restart, path: ./src, target: /srv}"
    directory = project(
        "services:\n"
        f"  one: {{{_SERVICE}, develop: {{watch: [{rule}]}}}}\n"
        f"  two: {{{_SERVICE}, develop: {{watch: [{rule}]}}}}\n"
        "  ended:\n"
        "    image: busybox\n"
        "    command: 'true'\n"
        "    develop: {watch: [{action: sync, path: ./src, target: /srv, initial_sync: true}]}\n"
    )
    source = directory / "src"
    source.mkdir()
    (source / "old").write_text("old")

    with watch(bay, directory) as loop:
        loop.event("done", service="ended")
        since = time.time()
        # Many files at one moment.
        (directory / "staged").mkdir()
        for number in range(50):
            (directory / "staged" / f"new{number}").write_text(str(number))
        (directory / "staged").rename(source / "new")
        for name in ("one", "two"):
            loop.event("done", service=name)
            assert loop.read(name, "/srv/new/new49") == "49"
            assert loop.count("done", service=name) == 1
        window = ("--since", f"{since:.6f}", "--until", f"{time.time():.6f}")
        lines = bay.ok("events", "--json", *window, "one", "two", cwd=directory).splitlines()
        starts = [e["service"] for e in map(json.loads, lines) if e["action"] == "start"]
        assert sorted(starts) == ["one", "two"]

        # A rename that all see, and a deletion, in containers that run and that do not.
        (source / "new" / "new0").rename(source / "renamed")
        (source / "old").unlink()
        for name in ("one", "two"):
            loop.until(_becomes(loop, name, "/srv/renamed", "0"))
            loop.until(_becomes(loop, name, "/srv/new/new0", ""))
            loop.until(_becomes(loop, name, "/srv/old", ""))
        loop.until(lambda: bay("cp", "ended:/srv/old", "-", cwd=directory).status == 1)
        loop.until(lambda: bay("cp", "ended:/srv/renamed", "-", cwd=directory).status == 0)
    assert bay("cp", "ended:/srv/renamed", str(directory / "got"), cwd=directory).status == 0
    assert (directory / "got").read_text() == "0"


def _becomes(loop: Watched, service: str, path: str, content: str) -> Callable[[], bool]:
    return lambda: loop.read(service, path) == content


@pytest.fixture
def source(bay: Bay, tmp_path: Path) -> Iterator[Source]:
    """A source that follows a repository in a directory of this host."""
    work = tmp_path / "themes"
    git("init", "-q", "-b", "main", str(work), cwd=tmp_path)
    source = Source(bay, "themes", tmp_path / "source.json")
    yield source
    if source("status").status in (0, 2):
        assert source("rm").status == 0


def test_theme_17_a_commit_is_applied_once_and_a_bad_one_is_no_success(
    bay: Bay, source: Source, tmp_path: Path
) -> None:
    work = tmp_path / "themes"
    bind = "volumes: ['./page:/page:ro']"
    good = f"services:\n  web: {{{_SERVICE}, {bind}}}\n  old: {{{_SERVICE}}}\n"

    def commit(text: str, page: str) -> str:
        (work / "compose.yaml").write_text(text)
        (work / "page").write_text(page)
        git("add", "-A", cwd=work)
        git("commit", "-q", "-m", page, cwd=work)
        return git("rev-parse", "HEAD", cwd=work)

    def containers() -> dict[str, str]:
        lines = bay.ok("-p", "themes", "ps", "--format", "json").splitlines()
        return {record["Service"]: record["ID"] for record in map(json.loads, lines)}

    first = commit(good, "one")
    added = source.add({"url": str(work), "interval": "1h", "healthGate": {"timeout": "60s"}})
    assert added.status == 0, str(added)
    before = containers()
    assert before.keys() == {"web", "old"}
    # Nothing new: nothing is done, however often it is looked at.
    for _ in range(3):
        assert source.sync().status == 0
    assert containers() == before
    assert len(json.loads(source("history", "--format", "json").out)) == 1

    # What has left the repository leaves the host; what is mounted from it follows.
    second = commit(f"services:\n  web: {{{_SERVICE}, {bind}}}\n", "two")
    assert source.sync().status == 0
    assert source.applied() == second
    assert containers().keys() == {"web"}
    assert bay.ok("-p", "themes", "exec", "-T", "web", "cat", "/page") == "two"

    check = "healthcheck: {test: 'false', interval: 50ms, retries: 1}"
    commit(f"services:\n  web: {{{_SERVICE}, {bind}, {check}}}\n", "three")
    result = source.sync()
    assert result.status == 1 and "unhealthy" in result.err, str(result)
    status = source.status()
    assert (status["state"], status["ready"]) == ("RolledBack", False)
    assert source.applied() == second
    assert bay.ok("-p", "themes", "exec", "-T", "web", "cat", "/page") == "two"
    after = containers()
    assert source.sync().status == 1
    assert containers() == after
    assert first != second


def test_theme_21_a_mounted_file_that_is_saved_restarts_who_has_it_for_as_long_as_one_likes(
    bay: Bay, project: Project
) -> None:
    directory = project(
        "services:\n"
        "  web:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    command: [sh, -c, 'cat /conf/app; exec sleep 1000']\n"
        "    volumes: ['./conf:/conf:ro']\n"
        f"  other: {{{_SERVICE}}}\n",
    )
    conf = directory / "conf"
    conf.mkdir()
    (conf / "app").write_text("0\n")

    with watch(bay, directory, "--auto") as loop:
        for number in range(1, 6):
            if number == 4:  # as a checkout does, the whole directory is another one
                shutil.copytree(conf, directory / "fresh")
                conf.rename(directory / "stale")
                (directory / "fresh").rename(conf)
            (directory / "draft").write_text(f"{number}\n")
            (directory / "draft").replace(conf / "app")

            loop.until(_printed(bay, directory, str(number)))
        assert loop.count("done", service="other") == 0


def _printed(bay: Bay, directory: Path, text: str) -> Callable[[], bool]:
    """Whether a text is the last thing that the service `web` has printed."""
    shown = ("logs", "--no-log-prefix", "web")
    return lambda: bay.ok(*shown, cwd=directory).split()[-1:] == [text]
