"""What goes wrong with the dev loops of other tools does not go wrong here."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.watched import Watched, watch

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

IDLE = "image: debian:bookworm, init: true, command: sleep 1000"
COUNTING = (
    "image: debian:bookworm, init: true, stop_grace_period: 5s, "
    "command: [sh, -c, 'echo start; cat /srv/* 2>/dev/null; exec sleep 1000']"
)

Project = Callable[..., Path]


def starts(bay: Bay, directory: Path, service: str) -> int:
    """How often the service's container has been started."""
    return bay.ok("logs", "--no-log-prefix", service, cwd=directory).splitlines().count("start")


def test_a_deletion_does_not_fail_where_the_container_has_exited(
    bay: Bay, project: Project
) -> None:
    directory = project(
        "services: {web: {image: debian:bookworm, command: [sh, -c, 'ls /srv'], "
        "develop: {watch: [{action: sync, path: ./src, target: /srv, initial_sync: true}]}}}\n"
    )
    source = directory / "src"
    source.mkdir()
    (source / "keep.txt").write_text("keep")
    (source / "gone.txt").write_text("gone")

    with watch(bay, directory) as loop:
        loop.until(
            lambda: bay.containers(directory)[f"{directory.name}-web-1"]["State"] == "exited"
        )
        loop.synced(source / "gone.txt")
        (source / "gone.txt").unlink()
        loop.until(lambda: any(one["count"] == 1 for one in loop.heard("done", detail="")))
        assert loop.count("failed") == 0

    bay.ok("start", cwd=directory)
    loop.until(
        lambda: bay.ok("logs", "--no-log-prefix", "web", cwd=directory).endswith("keep.txt\n")
    )


def test_many_files_and_rules_do_not_restart_it_twice(bay: Bay, project: Project) -> None:
    rules = (
        "{action: sync+restart, path: ./src, target: /srv}, "
        "{action: restart, path: ./src}, {action: sync+restart, path: ./src/b, target: /opt/b}"
    )
    directory = project(f"services: {{web: {{{COUNTING}, develop: {{watch: [{rules}]}}}}}}\n")
    (directory / "src" / "b").mkdir(parents=True)

    with watch(bay, directory) as loop:
        for number in range(20):
            (directory / "src" / f"{number}.txt").write_text("x\n")
        (directory / "src" / "b" / "c.txt").write_text("x\n")
        assert loop.event("done")["action"] == "sync+restart"
        # One more, so that a restart that was still to come would have come before.
        (directory / "src" / "last.txt").write_text("last\n")
        loop.synced(directory / "src" / "last.txt", directory / "src" / "b" / "c.txt")
        loop.until(lambda: starts(bay, directory, "web") > loop.count("done"))
        assert starts(bay, directory, "web") == 1 + loop.count("done")


def test_its_output_is_not_lost_after_a_restart_or_a_rebuild(bay: Bay, project: Project) -> None:
    directory = project(
        "services:\n"
        "  web:\n"
        "    build: .\n"
        "    init: true\n"
        "    command: [sh, -c, 'cat /say.txt /srv/say.txt; exec sleep 1000']\n"
        "    develop:\n"
        "      watch:\n"
        "        - {action: sync+restart, path: ./src, target: /srv, initial_sync: true}\n"
        "        - {action: rebuild, path: ./say.txt}\n",
        **{"Dockerfile": "FROM debian:bookworm\nCOPY say.txt src /srv/\nCOPY say.txt /\n"},
    )
    (directory / "src").mkdir()
    (directory / "src" / "say.txt").write_text("synced 1\n")
    (directory / "say.txt").write_text("built 1\n")

    with bay.started("up", "--watch", cwd=directory) as process:
        loop = Watched(bay, directory, process)

        def said(text: str) -> None:
            loop.until(lambda: f"web-1  | {text}" in loop.lines)

        said("built 1")
        loop.until(lambda: any(line.startswith("watching ") for line in loop.lines))
        for number in (2, 3):
            (directory / "src" / "say.txt").write_text(f"synced {number}\n")
            said(f"synced {number}")
        for number in (2, 3):
            (directory / "say.txt").write_text(f"built {number}\n")
            said(f"built {number}")
        (directory / "src" / "say.txt").write_text("synced 4\n")
        said("synced 4")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130

    (container,) = bay.containers(directory).values()
    assert container["State"] == "exited"


def test_two_services_do_not_race_on_a_rename(bay: Bay, project: Project) -> None:
    rule = "develop: {watch: [{action: sync, path: ./src, target: /srv}]}"
    directory = project(f"services: {{a: {{{IDLE}, {rule}}}, b: {{{IDLE}, {rule}}}}}\n")
    source = directory / "src"
    source.mkdir()

    with watch(bay, directory) as loop:
        (source / "0.txt").write_text("x")
        for number in range(300):
            (source / f"{number}.txt").rename(source / f"{number + 1}.txt")
        both = ("a", "b")
        loop.until(lambda: all(loop.files(name, "/srv") == ["300.txt"] for name in both))
        assert loop.count("failed") == loop.count("warning") == 0


def test_what_a_service_writes_itself_does_not_restart_it_for_ever(
    bay: Bay, project: Project
) -> None:
    directory = project(
        "services: {web: {image: debian:bookworm, init: true, "
        "command: [sh, -c, 'echo start; date +%N > /data/started; exec sleep 1000'], "
        "volumes: ['./data:/data'], "
        "develop: {watch: [{action: restart, path: ./data}]}}}\n"
    )
    (directory / "data").mkdir()

    with watch(bay, directory) as loop:
        (directory / "data" / "by-hand").write_text("x")
        loop.until(
            lambda: [one for one in loop.heard("held") if "left alone" in one["message"]], 120
        )
        assert starts(bay, directory, "web") < 12, loop.heard("failed")
        before = loop.count("done")

        def saved() -> bool:
            with (directory / "data" / "by-hand").open("a") as file:
                file.write("y")
            return loop.count("done") > before

        # What a person saves at another time counts again.
        loop.until(saved)


def test_a_restart_does_not_wait_for_a_program_that_cannot_hear_it(
    bay: Bay, project: Project
) -> None:
    directory = project(
        "services: {web: {image: debian:bookworm, command: sleep 1000, stop_grace_period: 1000s, "
        "develop: {watch: [{action: restart, path: ./src}]}}}\n"
    )
    (directory / "src").mkdir()

    with watch(bay, directory) as loop:
        for number in range(3):
            (directory / "src" / f"{number}.txt").write_text("x")
            loop.until(lambda: loop.count("done") > number)  # noqa: B023  # called in this round
    bay.ok("down", "-t", "0", cwd=directory)


def test_a_changed_file_that_is_mounted_does_not_go_unnoticed(bay: Bay, project: Project) -> None:
    directory = project(
        "services:\n"
        "  declared:\n"
        "    image: debian:bookworm\n"
        "    init: true\n"
        "    command: [sh, -c, 'cat /etc/app.conf; exec sleep 1000']\n"
        "    volumes: ['./app.conf:/etc/app.conf']\n"
        "    develop: {watch: [{action: restart, path: ./app.conf}]}\n"
        "  derived:\n"
        "    image: debian:bookworm\n"
        "    init: true\n"
        "    command: [sh, -c, 'cat /etc/app.conf; exec sleep 1000']\n"
        "    volumes: ['./app.conf:/etc/app.conf:ro', './data:/data']\n",
        **{"app.conf": "one\n"},
    )

    with watch(bay, directory, "--auto") as loop:
        assert "mounted writable" in loop.event("warning")["message"]
        # As editors save it: the name leads to another file, which only a new mount shows.
        (directory / "new").write_text("two\n")
        (directory / "new").replace(directory / "app.conf")
        both = ("declared", "derived")
        for service in both:
            loop.event("done", service=service, action="restart")

        def printed(service: str) -> str:
            return bay.ok("logs", "--no-log-prefix", service, cwd=directory)

        loop.until(lambda: all(printed(service).endswith("two\n") for service in both))


def test_nothing_is_stuck_after_the_roots_themselves_were_replaced(
    bay: Bay, project: Project
) -> None:
    rule = "{action: sync, path: ./src/app, target: /srv}"
    directory = project(f"services: {{web: {{{IDLE}, develop: {{watch: [{rule}]}}}}}}\n")
    source = directory / "src"
    (source / "app").mkdir(parents=True)

    with watch(bay, directory) as loop:
        for number in range(5):
            name = f"{number}.txt"
            source.rename(directory / f"former{number}")
            (source / "app").mkdir(parents=True)
            (source / "app" / name).write_text("x")
            loop.until(functools.partial(_holds, loop, [name]))


def _holds(loop: Watched, names: list[str]) -> bool:
    return loop.files("web", "/srv") == names
