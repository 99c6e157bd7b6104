"""Themes 5, 6, 18, 19 and 22: what is up stays up, in order; what waits ends; what stops, stops."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.boots import booted, power_off

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

Project = Callable[..., Path]
Eventually = Callable[..., None]

# Each needs the one before to be healthy, and is healthy when that one answers to its name.
CHAIN = "services:\n" + "".join(
    f"  {name}:\n"
    "    image: busybox\n"
    "    init: true\n"
    "    stop_grace_period: 0s\n"
    "    restart: always\n"
    "    command: httpd -f -p 80 -h /bin\n"
    f'    healthcheck: {{test: "wget -q -O /dev/null {needed or "127.0.0.1"}/true",'
    " interval: 100ms, retries: 100}\n"
    + (f"    depends_on: {{{needed}: {{condition: service_healthy}}}}\n" if needed else "")
    for name, needed in (("d", "c"), ("c", "b"), ("b", "a"), ("a", ""))
)


def events(bay: Bay, directory: Path, since: float) -> list[dict[str, Any]]:
    """What has happened to the containers of a project from a time on."""
    window = ("--since", f"{since:.6f}", "--until", f"{time.time():.6f}")
    lines = bay.ok("events", "--json", *window, cwd=directory).splitlines()
    return [json.loads(line) for line in lines]


def healthy(bay: Bay, directory: Path) -> bool:
    return all(c["Health"] == "healthy" for c in bay.containers(directory).values())


def test_theme_05_after_a_reboot_dependencies_come_up_in_order_and_on_their_conditions(
    bay: Bay, project: Project, eventually: Eventually
) -> None:
    directory = project(CHAIN)
    bay.ok("up", "-d", "--wait", cwd=directory)
    before = bay.containers(directory)
    power_off(bay)
    since = time.time()

    with booted(bay) as daemon:
        eventually(lambda: bay("daemon", "status").status == 0, "the daemon answers")
        eventually(lambda: healthy(bay, directory), "everything is healthy again", 60)
        told = [
            (event["action"], event["service"])
            for event in events(bay, directory, since)
            if event["action"] in ("start", "health_status: healthy")
        ]
        order = [(what, name) for name in "abcd" for what in ("start", "health_status: healthy")]
        assert told == order
        assert {n: c["ID"] for n, c in bay.containers(directory).items()} == {
            n: c["ID"] for n, c in before.items()
        }
        assert bay("plan", cwd=directory).status == 0
        assert daemon.poll() is None


def test_theme_05_a_dependency_that_crashes_is_started_again_and_who_asks_for_it_with_it(
    bay: Bay, project: Project, eventually: Eventually
) -> None:
    service = "image: busybox, init: true, restart: always, stop_grace_period: 0s"
    directory = project(
        "services:\n"
        f"  db: {{{service}}}\n"
        f"  web: {{{service}, depends_on: {{db: {{condition: service_started, restart: true}}}}}}\n"
        f"  other: {{{service}, depends_on: [db]}}\n"
    )
    bay.ok("up", "-d", cwd=directory)
    since = time.time()
    bay.ok("restart", "-t", "0", "db", cwd=directory)
    told = [(e["service"], e["action"]) for e in events(bay, directory, since)]
    starts = [name for name, action in told if action == "start"]
    assert starts == ["db", "web"]
    assert told.index(("web", "die")) < told.index(("db", "die"))

    since = time.time()
    # It ends with the container, sooner or later than it could say so.
    bay("exec", "-T", "db", "kill", "-9", "-1", cwd=directory)
    eventually(
        lambda: (
            ("db", "start") in [(e["service"], e["action"]) for e in events(bay, directory, since)]
        ),
        "the store is started again",
    )
    assert {c["State"] for c in bay.containers(directory).values()} == {"running"}


def test_theme_06_what_is_unhealthy_is_restarted_where_that_is_asked_for(
    bay: Bay, project: Project, eventually: Eventually
) -> None:
    service = (
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    tmpfs: [/state]\n"
        "    healthcheck: {test: '! test -e /state/broken', interval: 100ms, retries: 1}\n"
    )
    directory = project(
        f"services:\n  asks:\n{service}    restart: always\n"
        f"    x-bayplan: {{restart_on_unhealthy: true}}\n  asks-not:\n{service}"
    )
    bay.ok("up", "-d", "--wait", cwd=directory)
    since = time.time()
    for name in ("asks", "asks-not"):
        bay.ok("exec", "-T", name, "touch", "/state/broken", cwd=directory)

    def told() -> list[tuple[str, str]]:
        return [(e["service"], e["action"]) for e in events(bay, directory, since)]

    eventually(lambda: ("asks-not", "health_status: unhealthy") in told(), "one is unhealthy")
    eventually(lambda: ("asks", "health_status: healthy") in told(), "the other one is well again")
    seen = [action for name, action in told() if name == "asks"]
    assert seen.index("health_status: unhealthy") < seen.index("start")
    assert ("asks-not", "start") not in told()
    status = json.loads(bay("status", "--format", "json", cwd=directory).out)
    health = {service["name"]: service["health"] for service in status["services"]}
    assert health == {"asks": "Healthy", "asks-not": "Degraded"}


def test_theme_18_a_first_process_that_knows_no_signals_stops_at_once_with_init(
    bay: Bay, project: Project
) -> None:
    directory = project(
        "services:\n"
        "  with: {image: busybox, command: sleep 1000, init: true, stop_grace_period: 100s}\n"
        "  without: {image: busybox, command: sleep 1000, stop_grace_period: 100ms}\n"
    )
    bay.ok("up", "-d", cwd=directory)

    stopped = bay("stop", cwd=directory)

    assert stopped.status == 0
    codes = {c["Service"]: c["ExitCode"] for c in bay.containers(directory).values()}
    assert codes == {"with": 143, "without": 137}  # by SIGTERM; by SIGKILL, after the grace
    warned = [line for line in stopped.err.splitlines() if "SIGTERM" in line]
    assert len(warned) == 1 and f"{directory.name}-without-1" in warned[0], stopped.err


def test_theme_18_containers_are_stopped_side_by_side(bay: Bay, project: Project) -> None:
    names = [f"deaf{number}" for number in range(6)]
    deaf = "{image: busybox, command: sleep 1000, stop_grace_period: 2s}"
    directory = project("services:\n" + "".join(f"  {name}: {deaf}\n" for name in names))
    bay.ok("up", "-d", cwd=directory)
    since = time.time()

    bay.ok("stop", cwd=directory)

    told = [e for e in events(bay, directory, since) if e["action"] in ("kill", "die")]
    first = told[: len(names)]
    assert {e["action"] for e in first} == {"kill"}
    assert {e["service"] for e in first} == set(names)


def test_theme_19_an_up_never_waits_for_what_cannot_become_healthy(
    bay: Bay, project: Project
) -> None:
    directory = project(
        "services:\n"
        "  sick:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    healthcheck: {test: 'echo out of order; exit 1', interval: 50ms, retries: 2}\n"
        "  gone:\n"
        "    image: busybox\n"
        "    command: sh -c 'exit 9'\n"
        "    healthcheck: {test: 'true', interval: 1h}\n"
        "  slow:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    healthcheck: {test: 'true', interval: 1h}\n"
        "  one: {image: busybox, depends_on: {sick: {condition: service_healthy}}}\n"
        "  two: {image: busybox, depends_on: {gone: {condition: service_healthy}}}\n"
        "  three: {image: busybox, depends_on: {slow: {condition: service_healthy}}}\n"
    )
    for service, args, reason in (
        ("one", (), "sick-1 is unhealthy: out of order"),
        ("two", (), "gone-1 exited with 9"),
        ("three", ("--wait", "--wait-timeout", "1"), "slow-1"),
    ):
        failed = bay("up", "-d", *args, service, cwd=directory, timeout=100)
        assert failed.status == 1
        assert reason in failed.err, failed.err
        assert f"{directory.name}-{service}-1" not in bay.containers(directory)


def test_theme_19_one_service_is_updated_and_its_dependencies_are_left_alone(
    bay: Bay, project: Project, ids: Callable[[Path], dict[str, str]]
) -> None:
    service = "image: busybox, init: true, stop_grace_period: 0s"
    text = (
        "services:\n"
        f"  db: {{{service}, environment: {{MODE: old}}}}\n"
        f"  web: {{{service}, environment: {{MODE: old}}, depends_on: [db]}}\n"
        f"  other: {{{service}, depends_on: [web]}}\n"
    )
    directory = project(text)
    bay.ok("up", "-d", cwd=directory)
    before = ids(directory)
    (directory / "compose.yaml").write_text(text.replace("old", "new"))

    bay.ok("up", "-d", "--no-deps", "web", cwd=directory)

    after = ids(directory)
    assert {name for name in before if before[name] != after[name]} == {"web-1"}
    assert bay.ok("exec", "-T", "web", "env", cwd=directory).count("MODE=new") == 1


def test_theme_22_a_probe_that_fails_while_it_starts_up_does_not_count(
    bay: Bay, project: Project
) -> None:
    directory = project(
        "services:\n"
        "  web:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    tmpfs: [/state]\n"
        "    healthcheck:\n"
        "      # Fails five times, where one failure would be enough.\n"
        "      test: 'echo x >> /state/probes; test $$(stat -c %s /state/probes) -gt 10'\n"
        "      interval: 1h\n"
        "      retries: 1\n"
        "      start_period: 1h\n"
        "      start_interval: 50ms\n"
    )
    since = time.time()
    bay.ok("up", "-d", "--wait", cwd=directory)
    actions = [event["action"] for event in events(bay, directory, since)]
    assert [a for a in actions if a.startswith("health")] == ["health_status: healthy"]


def test_theme_22_restarts_while_an_up_waits_wedge_nothing_and_double_nothing(
    bay: Bay, project: Project, eventually: Eventually
) -> None:
    directory = project(
        "services:\n"
        "  web:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    volumes: ['.:/here']\n"
        "    command: [sh, -c, 'echo run; exec sleep 1000']\n"
        "    healthcheck: {test: 'test -e /here/go', interval: 50ms, retries: 10000}\n"
    )
    with bay.started("up", "-d", "--wait", cwd=directory) as waiting:
        eventually(lambda: bay.containers(directory), "the container is there")
        restarts = [
            subprocess.Popen(
                bay.command("restart", "-t", "0", "web"),
                cwd=directory,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for _ in range(4)
        ]
        (directory / "go").touch()
        assert waiting.stdout is not None
        out = waiting.stdout.read()
        assert waiting.wait(60) == 0, out
        for restart in restarts:
            _, complaint = restart.communicate(timeout=60)
            assert restart.returncode == 0, complaint
    (container,) = bay.containers(directory).values()
    assert container["State"] == "running"
    assert bay.ok("top", "web", cwd=directory).count("sleep 1000") == 1
    # The first start and those of the restarts; one that was killed at once may have said nothing.
    assert 1 <= bay.ok("logs", "--no-log-prefix", cwd=directory).split().count("run") <= 5
    assert bay("plan", cwd=directory).status == 0
