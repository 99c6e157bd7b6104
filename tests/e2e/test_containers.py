"""Single containers: run, create, rm, scale, wait, pause, port, top, stats, events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_exec import Terminal

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

_STACK = """
services:
  db: {image: debian:bookworm, init: true, command: sleep 1000}
  web:
    image: debian:bookworm
    init: true
    command: sleep 1000
    environment: {COLOUR: red, SIZE: big}
    ports: ["127.0.0.1::80"]
    depends_on: [db]
"""


@pytest.fixture
def stack(project: Callable[..., Path]) -> Path:
    return project(_STACK)


def states(bay: Bay, stack: Path) -> dict[str, str]:
    return {name: record["State"] for name, record in bay.containers(stack).items()}


def test_run_starts_dependencies_first_and_passes_streams_and_status_on(
    bay: Bay, stack: Path
) -> None:
    result = bay(
        "run", "--rm", "-e", "COLOUR=blue", "-w", "/tmp", "-u", "nobody", "web",
        "sh", "-c", "cat; echo $COLOUR $SIZE $(pwd) $(id -un); echo bad >&2; exit 7",
        cwd=stack, stdin="typed\n",
    )  # fmt: skip

    assert result.status == 7, str(result)
    assert result.out == "typed\nblue big /tmp nobody\n"
    assert "bad" in result.err
    assert states(bay, stack) == {f"{stack.name}-db-1": "running"}


def test_a_one_off_container_keeps_its_labels_and_is_told_from_the_replicas(
    bay: Bay, stack: Path
) -> None:
    bay.ok("up", "-d", cwd=stack)
    name = bay.ok("run", "-d", "-l", "made.by=hand", "--no-deps", "web", "sleep", "1000", cwd=stack)

    record = bay.containers(stack)[name.strip()]
    assert name.startswith(f"{stack.name}-web-run-")
    assert "com.docker.compose.oneoff=True" in record["Labels"]
    assert "made.by=hand" in record["Labels"]
    assert name.strip() not in bay.ok("ps", cwd=stack)
    assert bay.ok("exec", "web", "hostname", cwd=stack)
    assert "Up" in bay.ok("up", "-d", cwd=stack) + bay.ok("ps", cwd=stack)
    bay.ok("down", "-t", "0", cwd=stack)
    assert states(bay, stack) == {}


def test_bytes_pass_a_run_unchanged_however_soon_it_ends(bay: Bay, stack: Path) -> None:
    out = bay.ok("run", "--rm", "--no-deps", "-T", "web", "seq", "1", "300000", cwd=stack)
    assert out == "".join(f"{number}\n" for number in range(1, 300_001))


def test_a_detached_run_that_is_to_be_removed_goes_when_it_has_ended(
    bay: Bay, stack: Path, eventually: Callable[..., None]
) -> None:
    bay.ok("run", "-d", "--rm", "--no-deps", "web", "sleep", "0.2", cwd=stack)
    eventually(lambda: states(bay, stack) == {}, "it is gone")


def test_run_on_a_terminal(bay: Bay, stack: Path) -> None:
    shell = "echo size $(stty size); read -r line; echo got $line; exit 5"
    command = bay.command("run", "--rm", "--no-deps", "web", "bash", "-c", shell)
    terminal = Terminal(command, stack)
    try:
        terminal.wait_for("size 40 100")
        terminal.type("hello\r")
        terminal.wait_for("got hello")
        assert terminal.process.wait(30) == 5
    finally:
        terminal.close()


def test_run_mounts_publishes_and_overrides_what_it_is_told_to(bay: Bay, stack: Path) -> None:
    (stack / "given").mkdir()
    (stack / "given" / "file").write_text("content\n")
    (stack / "more.env").write_text("FROM_FILE=1\n")

    out = bay.ok(
        "run", "--rm", "--no-deps", "-v", "./given:/given:ro", "--env-from-file", "more.env",
        "--entrypoint", "cat /given/file", "web", cwd=stack,
    )  # fmt: skip
    assert out == "content\n"
    name = bay.ok(
        "run", "-d", "--no-deps", "--name", "mine", "-p", "127.0.0.1:38080:80", "web",
        "sleep", "1000", cwd=stack,
    ).strip()  # fmt: skip
    assert name == "mine"
    assert bay.containers(stack)["mine"]["Ports"] == "127.0.0.1:38080->80/tcp"


def test_a_command_that_is_not_there_ends_with_127_and_leaves_nothing(
    bay: Bay, stack: Path
) -> None:
    assert bay("run", "--rm", "--no-deps", "web", "nonsense", cwd=stack).status == 127
    assert states(bay, stack) == {}


def test_create_makes_and_rm_removes_what_does_not_run(bay: Bay, stack: Path) -> None:
    bay.ok("create", cwd=stack)
    assert set(states(bay, stack).values()) == {"created"}
    bay.ok("start", "db", cwd=stack)

    assert bay("rm", cwd=stack).status == 1
    bay.ok("rm", "-f", cwd=stack)
    assert states(bay, stack) == {f"{stack.name}-db-1": "running"}
    bay.ok("rm", "-f", "-s", "-t", "0", cwd=stack)
    assert states(bay, stack) == {}


def test_scale_changes_the_number_of_replicas_alone(bay: Bay, stack: Path) -> None:
    bay.ok("up", "-d", cwd=stack)
    bay.ok("scale", "db=3", cwd=stack)
    assert sum("-db-" in name for name in states(bay, stack)) == 3
    bay.ok("scale", "db=1", cwd=stack)
    assert sum("-db-" in name for name in states(bay, stack)) == 1
    assert bay("scale", "db", cwd=stack).status == 1


def test_pause_freezes_and_unpause_thaws(bay: Bay, stack: Path) -> None:
    bay.ok("up", "-d", cwd=stack)
    bay.ok("pause", "db", cwd=stack)
    assert states(bay, stack)[f"{stack.name}-db-1"] == "paused"
    bay.ok("unpause", cwd=stack)
    assert set(states(bay, stack).values()) == {"running"}


def test_port_top_and_stats_tell_of_what_runs(bay: Bay, stack: Path) -> None:
    bay.ok("up", "-d", cwd=stack)

    assert bay.ok("port", "web", "80", cwd=stack).startswith("127.0.0.1:")
    assert bay("port", "web", "81", cwd=stack).status == 1
    top = bay.ok("top", cwd=stack)
    assert top.splitlines()[0].split()[:3] == ["SERVICE", "CONTAINER", "UID"]
    assert top.count("sleep 1000") >= 2
    lines = bay.ok("stats", "--no-stream", "--format", "json", cwd=stack).splitlines()
    records = {record["Name"]: record for record in map(json.loads, lines)}
    assert records.keys() == bay.containers(stack).keys()
    assert int(records[f"{stack.name}-db-1"]["PIDs"]) >= 1
    shown = bay.ok("stats", "--no-stream", "--format", "{{.Name}} {{.MemPerc}}", "db", cwd=stack)
    assert shown.startswith(f"{stack.name}-db-1 0.")


def test_wait_ends_with_the_status_of_the_container_and_can_take_all_down(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(
        "services:\n  job: {image: debian:bookworm, command: sh -c 'sleep 1; exit 4'}\n"
    )
    bay.ok("up", "-d", cwd=directory)

    result = bay("wait", "--down-project", "job", cwd=directory)

    assert result.status == 4, str(result)
    assert states(bay, directory) == {}


def test_events_tell_of_a_container_s_life(bay: Bay, stack: Path) -> None:
    bay.ok("create", cwd=stack)
    with bay.started("events", "--json", "--until", "-0s", cwd=stack):
        pass
    with bay.started("events", "--json", "db", cwd=stack) as watching:
        assert watching.stdout is not None
        actions: list[str] = []
        # Whether it listens yet cannot be seen: make events until one comes.
        import select

        while not select.select([watching.stdout], [], [], 0)[0]:
            bay.ok("restart", "-t", "0", "db", cwd=stack)
        event = json.loads(watching.stdout.readline())
        actions.append(event["action"])
        assert event["type"] == "container" and event["service"] == "db"
        assert event["attributes"]["name"] == f"{stack.name}-db-1"


def test_ps_takes_templates_and_refuses_what_it_does_not_know(bay: Bay, stack: Path) -> None:
    bay.ok("up", "-d", "db", cwd=stack)

    assert bay.ok("ps", "--format", "{{.Name}}|{{.State}}", cwd=stack) == (
        f"{stack.name}-db-1|running\n"
    )
    assert bay.ok("ps", "--format", "table {{.Service}}\\t{{.State}}", cwd=stack).split() == [
        "SERVICE", "STATE", "db", "running",
    ]  # fmt: skip
    assert bay("ps", "--format", "{{range .Ports}}x{{end}}", cwd=stack).status == 1
    assert bay.ok("ps", "--status", "exited", "-q", cwd=stack) == ""
    assert bay.ok("ls", "--filter", f"name={stack.name}", "-q") == f"{stack.name}\n"
