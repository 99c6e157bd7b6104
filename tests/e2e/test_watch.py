"""`bay watch`: what is saved becomes a sync, a restart or a rebuild."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.watched import Watched, changed, watch

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

IDLE = "image: debian:bookworm, init: true, command: sleep 1000, stop_grace_period: 5s"
BUILT = (
    "FROM debian:bookworm\n"
    "COPY needs.txt /needs.txt\n"
    "RUN cp /needs.txt /built.txt\n"
    "WORKDIR /app\n"
    "COPY app ./\n"
    'CMD ["sleep", "1000"]\n'
)
SYNC = "develop: {watch: [{action: sync, path: ./src, target: /srv}]}"

Project = Callable[..., Path]


def test_every_replica_gets_what_is_saved_renamed_and_deleted(bay: Bay, project: Project) -> None:
    directory = project(f"services: {{web: {{{IDLE}, scale: 2, {SYNC}}}}}\n")
    source = directory / "src"
    source.mkdir()
    (source / "old.txt").write_text("old")

    with watch(bay, directory) as loop:
        (source / "deep" / "er").mkdir(parents=True)
        (source / "deep" / "er" / "new.txt").write_text("new")
        (source / "deep" / "er" / "link").symlink_to("new.txt")
        (source / "run.sh").write_text("#!/bin/sh\n")
        (source / "run.sh").chmod(0o755)
        loop.synced(source / "deep" / "er" / "link", source / "run.sh")
        (source / "deep").rename(source / "other")
        # As editors save: a new file takes the old one's name.
        (source / ".run.sh.tmp").write_text("#!/bin/sh\necho 2\n")
        (source / ".run.sh.tmp").replace(source / "run.sh")
        loop.until(lambda: loop.files("web", "/srv") == loop.files("web", "/srv", index=2))
        loop.until(lambda: "other/er/link -> new.txt" in loop.files("web", "/srv"))
        loop.until(lambda: not any(name.startswith("deep") for name in loop.files("web", "/srv")))
        loop.until(lambda: loop.read("web", "/srv/run.sh") == "#!/bin/sh\necho 2\n")
        loop.until(lambda: ".run.sh.tmp" not in loop.files("web", "/srv"))


def test_a_stopped_container_gets_it_too(bay: Bay, project: Project) -> None:
    directory = project(f"services: {{web: {{{IDLE}, {SYNC}}}}}\n")
    (directory / "src").mkdir()
    bay.ok("up", "-d", cwd=directory)
    bay.ok("stop", "-t", "0", cwd=directory)

    with watch(bay, directory, "--no-up") as loop:
        (directory / "src" / "a.txt").write_text("a")
        loop.synced(directory / "src" / "a.txt")

    bay.ok("start", cwd=directory)
    assert bay.ok("exec", "-T", "web", "cat", "/srv/a.txt", cwd=directory) == "a"


def test_ignored_and_not_included_files_stay_out(bay: Bay, project: Project) -> None:
    rule = (
        "{action: sync, path: ./src, target: /srv, include: ['**/*.py', '**/*.txt'], "
        "ignore: [private/, '*.min.py']}"
    )
    directory = project(f"services: {{web: {{{IDLE}, develop: {{watch: [{rule}]}}}}}}\n")
    (directory / "src" / "private").mkdir(parents=True)

    with watch(bay, directory) as loop:
        for name in ("private/a.py", "b.min.py", "c.js", ".d.py.swp", "e.py~", "f.py", "last.txt"):
            (directory / "src" / name).write_text(name)
        loop.synced(directory / "src" / "last.txt", directory / "src" / "f.py")
        assert loop.files("web", "/srv") == ["f.py", "last.txt"]


def test_a_first_sync_brings_what_the_image_lacks(bay: Bay, project: Project) -> None:
    directory = project(
        f"services: {{web: {{{IDLE}, develop: {{watch: [{{action: sync, path: ., target: /srv, "
        "initial_sync: true, ignore: [no.txt]}]}}}\n",
        **{"yes.txt": "yes", "no.txt": "no", "Dockerfile": "FROM scratch\n"},
    )

    with watch(bay, directory) as loop:
        loop.event("done")
        assert "yes.txt" in loop.files("web", "/srv")
        assert not {"no.txt", "compose.yaml"} & set(loop.files("web", "/srv"))
        (directory / "more.txt").write_text("more")
        loop.synced(directory / "more.txt")
        # One that is made anew gets all of it again.
        bay.ok("up", "-d", "--force-recreate", "-t", "0", cwd=directory)
        loop.until(lambda: {"yes.txt", "more.txt"} <= set(loop.files("web", "/srv")))


def test_a_command_runs_after_a_sync_as_it_is_told_to(bay: Bay, project: Project) -> None:
    command = (
        "exec: {command: [sh, -c, 'echo $$MARK $$(id -un) $$PWD $$(cat /srv/a.txt) >> /tmp/ran'], "
        "user: daemon, working_dir: /usr, environment: {MARK: seen}}"
    )
    rule = f"{{action: sync+exec, path: ./src, target: /srv, {command}}}"
    directory = project(f"services: {{web: {{{IDLE}, develop: {{watch: [{rule}]}}}}}}\n")
    (directory / "src").mkdir()

    with watch(bay, directory) as loop:
        (directory / "src" / "a.txt").write_text("1")
        assert loop.event("done")["action"] == "sync+exec"
        assert loop.read("web", "/tmp/ran") == "seen daemon /usr 1\n"


def test_a_command_that_fails_is_shown_and_the_loop_goes_on(bay: Bay, project: Project) -> None:
    command = "exec: {command: [sh, -c, 'echo complaint; grep -q good /srv/a.txt']}"
    rule = f"{{action: sync+exec, path: ./src, target: /srv, {command}}}"
    directory = project(f"services: {{web: {{{IDLE}, develop: {{watch: [{rule}]}}}}}}\n")
    (directory / "src").mkdir()

    with watch(bay, directory) as loop:
        (directory / "src" / "a.txt").write_text("bad")
        failed = loop.event("failed")
        assert "exited with 1" in failed["message"]
        assert "still runs" in failed["running"]
        assert loop.event("output")["line"] == "complaint"
        (directory / "src" / "a.txt").write_text("good")
        assert loop.event("done")["action"] == "sync+exec"


@pytest.fixture
def built(project: Project) -> Path:
    """A stack with an image of its own, whose dependencies are copied before a RUN."""
    rules = (
        "develop: {watch: [{action: sync, path: ./app, target: /app}]}, "
        "x-bayplan: {fall_back_on: [needs.txt, app/schema.txt]}"
    )
    return _built(project, f"services: {{web: {{build: ., init: true, {rules}}}}}\n")


def _built(project: Project, spec: str) -> Path:
    directory = project(spec, **{"Dockerfile": BUILT, "needs.txt": "1\n"})
    (directory / "app").mkdir()
    (directory / "app" / "main.txt").write_text("main 1\n")
    (directory / "app" / "schema.txt").write_text("schema 1\n")
    return directory


def test_a_changed_dependency_file_means_exactly_one_build(bay: Bay, built: Path) -> None:
    with watch(bay, built) as loop:
        (before,) = bay.containers(built).values()
        images = len(bay.ok("image", "ls", "-q").split())
        # Both in one batch: the sync is part of the rebuild.
        (built / "app" / "main.txt").write_text("main 2\n")
        (built / "needs.txt").write_text("2\n")
        done = loop.event("done", action="rebuild")
        assert loop.read("web", "/built.txt") == "2\n"
        assert loop.read("web", "/app/main.txt") == "main 2\n"
        (built / "app" / "main.txt").write_text("main 3\n")
        loop.synced(built / "app" / "main.txt")
        (built / "app" / "schema.txt").write_text("schema 2\n")
        loop.event("done", action="rebuild", after=done)
        assert loop.read("web", "/app/main.txt") == "main 3\n"
        assert loop.count("started", action="rebuild") == 2
        (after,) = bay.containers(built).values()
        assert after["ID"] != before["ID"]
        # Those that were replaced are gone.
        loop.until(lambda: len(bay.ok("image", "ls", "-q").split()) == images)


def test_what_depends_on_a_rebuilt_service_restarts_with_it(bay: Bay, project: Project) -> None:
    # The build ignores the file, so that the image stays the same: containers are new all the same.
    directory = project(
        "services:\n"
        "  web: {build: ., init: true, develop: {watch: [{action: rebuild, path: ./go.txt}]}}\n"
        f"  api: {{{IDLE}, depends_on: {{web: {{condition: service_started, restart: true}}}}}}\n"
        f"  other: {{{IDLE}, depends_on: [web]}}\n",
        **{"go.txt": "1", "Dockerfile": 'FROM debian:bookworm\nCMD ["sleep", "1000"]\n'},
    )

    def started() -> dict[str, tuple[str, str]]:
        """Each service's container and when it was started."""
        return {
            container["Service"]: (
                container["ID"],
                bay.ok(
                    *("exec", container["Service"], "cut", "-d ", "-f22", "/proc/1/stat"),
                    cwd=directory,
                ),
            )
            for container in bay.containers(directory).values()
        }

    with watch(bay, directory) as loop:
        before = started()
        (directory / "go.txt").write_text("2")
        loop.event("done", service="web", action="rebuild")
        after = started()
        assert after["web"][0] != before["web"][0]
        assert after["api"][0] == before["api"][0] and after["api"][1] != before["api"][1]
        assert after["other"] == before["other"]


def test_a_build_that_fails_leaves_running_what_runs(bay: Bay, built: Path) -> None:
    with watch(bay, built) as loop:
        good = (built / "Dockerfile").read_text()
        (built / "Dockerfile").write_text(good.replace("RUN cp", "RUN echo no; false && cp"))
        (built / "needs.txt").write_text("2\n")
        failed = loop.event("failed")
        assert failed["action"] == "rebuild"
        assert "web-1 still runs as before" in failed["running"]
        assert loop.read("web", "/built.txt") == "1\n"
        (built / "Dockerfile").write_text(good)
        (built / "needs.txt").write_text("3\n")
        loop.event("done", action="rebuild")
        assert loop.read("web", "/built.txt") == "3\n"


def test_services_are_rebuilt_side_by_side(bay: Bay, project: Project) -> None:
    # Each waits for the other's: one after the other, neither would end.
    meet = (
        "FROM debian:bookworm\nARG ME OTHER\nCOPY go.txt /\n"
        "RUN --mount=type=cache,id=meet-{tag},target=/meet touch /meet/$ME-$(cat /go.txt) && "
        "for n in $(seq 1200); do [ -e /meet/$OTHER-$(cat /go.txt) ] && exit 0; sleep 0.1; done; "
        'exit 1\nCMD ["sleep", "1000"]\n'
    )
    rule = "init: true, develop: {watch: [{action: rebuild, path: ./go.txt}]}"
    directory = project(
        "services:\n"
        f"  a: {{build: {{context: ., args: {{ME: a, OTHER: b}}}}, {rule}}}\n"
        f"  b: {{build: {{context: ., args: {{ME: b, OTHER: a}}}}, {rule}}}\n",
        **{"go.txt": "1"},
    )
    (directory / "Dockerfile").write_text(meet.replace("{tag}", directory.name))

    with watch(bay, directory) as loop:
        (directory / "go.txt").write_text("2")
        for service in ("a", "b"):
            loop.event("done", service=service, action="rebuild")
            assert loop.read(service, "/go.txt") == "2"


def test_a_newer_rebuild_ends_an_older_one(bay: Bay, project: Project) -> None:
    directory = project(
        "services: {web: {build: ., init: true, "
        "develop: {watch: [{action: rebuild, path: ./go.txt}]}}}\n",
        **{
            "go.txt": "quick",
            "Dockerfile": "FROM debian:bookworm\nCOPY go.txt /\n"
            "RUN echo begun; ! grep -q slow /go.txt || sleep 1000\n"
            'CMD ["sleep", "1000"]\n',
        },
    )

    with watch(bay, directory) as loop:
        (directory / "go.txt").write_text("slow")
        loop.until(lambda: loop.heard("output", line="begun"))
        (directory / "go.txt").write_text("quick again")
        loop.event("done", action="rebuild")
        assert loop.read("web", "/go.txt") == "quick again"
        assert loop.count("done", action="rebuild") == 1


def test_a_changed_spec_is_applied_and_a_broken_one_is_shown(bay: Bay, project: Project) -> None:
    directory = project(
        f"services: {{web: {{{IDLE}, environment: {{A: '${{A}}'}}, {SYNC}}}}}\n",
        **{".env": "A=1\n"},
    )
    (directory / "src").mkdir()
    good = (directory / "compose.yaml").read_text()

    with watch(bay, directory) as loop:
        (directory / ".env").write_text("A=2\n")
        assert loop.event("spec")["ok"]
        assert bay.ok("exec", "-T", "web", "printenv", "A", cwd=directory) == "2\n"
        (directory / "compose.yaml").write_text(good.replace("services", "servicez"))
        assert 'unknown key "servicez"' in loop.event("spec", ok=False)["message"]
        (directory / "src" / "a.txt").write_text("a")
        loop.synced(directory / "src" / "a.txt")
        (directory / "compose.yaml").write_text(good.replace("./src", "./other"))
        (directory / "other").mkdir()
        loop.until(lambda: loop.heard("watching", paths=[str(directory / "other")]))
        (directory / "other" / "b.txt").write_text("b")
        loop.synced(directory / "other" / "b.txt")
        assert loop.files("web", "/srv") == ["a.txt", "b.txt"]


def test_auto_takes_its_rules_from_the_dockerfile(bay: Bay, project: Project) -> None:
    directory = _built(project, "services: {web: {build: ., init: true}}\n")

    assert "--auto" in bay("watch", cwd=directory).err
    with watch(bay, directory, "--auto") as loop:
        (directory / "app" / "main.txt").write_text("main 2\n")
        loop.synced(directory / "app" / "main.txt")
        assert loop.read("web", "/app/main.txt") == "main 2\n"
        (directory / "needs.txt").write_text("2\n")
        loop.event("done", action="rebuild")
        assert loop.read("web", "/built.txt") == "2\n"


def test_a_checkout_of_five_thousand_files_ends_identical(bay: Bay, project: Project) -> None:
    directory = project(f"services: {{web: {{{IDLE}, {SYNC}}}}}\n")
    source, other = directory / "src", directory / "other"
    for tree, word in ((source, "one"), (other, "two")):
        for number in range(5000):
            place = tree / f"{word if number % 10 == 0 else 'both'}{number % 50}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.txt").write_text(f"{word} {number // 2}\n")

    with watch(bay, directory) as loop:
        changed(loop, source, other)
        loop.until(lambda: loop.files("web", "/srv") == loop.here(source), 120)
        assert loop.checksums("web", "/srv") == loop.checksums_here(source)
        assert loop.count("done") < 20


def test_ctrl_c_ends_it_and_leaves_the_stack(bay: Bay, project: Project) -> None:
    directory = project(f"services: {{web: {{{IDLE}, {SYNC}}}}}\n")
    (directory / "src").mkdir()

    with watch(bay, directory) as loop:
        assert loop.end() == 130
        assert loop.event("ended")

    (container,) = bay.containers(directory).values()
    assert container["State"] == "running"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_its_end_is_the_end_of_the_command_that_it_runs(
    bay: Bay, project: Project, number: signal.Signals, status: int
) -> None:
    command = "exec: {command: [sh, -c, 'echo begun; exec sleep 4321']}"
    rule = f"{{action: sync+exec, path: ./src, target: /srv, {command}}}"
    directory = project(f"services: {{web: {{{IDLE}, develop: {{watch: [{rule}]}}}}}}\n")
    (directory / "src").mkdir()

    with watch(bay, directory) as loop:
        (directory / "src" / "a.txt").write_text("a")
        loop.until(lambda: loop.heard("output", line="begun"))
        assert loop.end(number) == status
        loop.until(lambda: "4321" not in bay.ok("top", "web", cwd=directory))


def test_a_killed_daemon_is_waited_for(bay: Bay, project: Project) -> None:
    rule = "{action: sync+restart, path: ./src, target: /srv}"
    directory = project(
        "services: {web: {image: debian:bookworm, init: true, "
        f"command: [sh, -c, 'cat /srv/*; exec sleep 1000'], develop: {{watch: [{rule}]}}}}}}\n"
    )
    (directory / "src").mkdir()

    with watch(bay, directory) as loop:
        bay.kill_daemon()
        (directory / "src" / "a.txt").write_text("after\n")
        loop.event("done", action="sync+restart")
        loop.until(lambda: "after" in bay.ok("logs", "web", cwd=directory))


@pytest.fixture(scope="module")
def guestbook(new_instance: Callable[..., Bay], templates: object) -> Iterator[Bay]:
    yield new_instance(templates.guestbook())  # type: ignore[attr-defined]  # of conftest


def test_the_guest_book_is_reloaded_by_a_saved_page(
    guestbook: Bay, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    from tests.e2e.conftest import GUESTBOOK

    directory = tmp_path / "guestbook"
    shutil.copytree(GUESTBOOK, directory)
    env = {"GUESTBOOK_PORT": "8099"}

    def page() -> str:
        program = (
            "import urllib.request\n"
            "print(urllib.request.urlopen('http://127.0.0.1:8099/', timeout=10).read().decode())"
        )
        return guestbook.host.output("python3", "-c", program)

    with watch(guestbook, directory, env=env) as loop:
        before = guestbook.containers(directory)["guestbook-web-1"]["ID"]
        text = (directory / "web" / "page.html").read_text()
        (directory / "web" / "page.html").write_text(text.replace("<body", "<body data-new='yes'"))
        loop.event("done", service="web", action="sync+restart")
        eventually(lambda: "data-new='yes'" in page(), "the new page is served")
        assert guestbook.containers(directory)["guestbook-web-1"]["ID"] == before
        assert loop.count("failed") == 0


def test_a_terminal_sees_lines_with_times(bay: Bay, project: Project) -> None:
    directory = project(f"services: {{web: {{{IDLE}, {SYNC}}}}}\n")
    (directory / "src").mkdir()

    with bay.started("watch", cwd=directory) as process:
        loop = Watched(bay, directory, process)
        loop.until(lambda: any(line == "watching src" for line in loop.lines))
        (directory / "src" / "a.txt").write_text("a")
        loop.until(lambda: any("web  synced in " in line for line in loop.lines))
        assert any(line.endswith(": src/a.txt") for line in loop.lines)


def test_what_cannot_be_followed_is_refused_in_one_line(bay: Bay, project: Project) -> None:
    directory = project(
        "services: {web: {image: debian:bookworm, "
        "develop: {watch: [{action: rebuild, path: ./src}]}}}\n"
    )

    refused = bay("watch", cwd=directory)

    assert refused.status == 1
    assert refused.err.startswith("bay: services.web.develop.watch[0]: the service has no build")
    assert os.listdir(directory) == ["compose.yaml"]
