"""Themes 10, 13, 14, 15 and 20: what is read from files, and how much of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

Project = Callable[..., Path]

_TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@pytest.mark.timeout(400)
def test_theme_10_the_work_grows_with_the_number_of_services_and_no_faster(
    bay: Bay, project: Project
) -> None:
    """Processor time of the command and of the daemon; five times as much to do may take eight
    times as long, where a square would take 25 times."""

    def spent(directory: Path, *args: str, status: int) -> float:
        daemon = bay.daemon_pid()
        children = os.times()
        before = processor_seconds(daemon) + children.children_user + children.children_system
        for _ in range(3):
            result = bay(*args, cwd=directory)
            assert result.status == status, str(result)
        children = os.times()
        after = processor_seconds(daemon) + children.children_user + children.children_system
        return after - before

    def stack(count: int, first: str) -> Path:
        service = "{image: busybox, network_mode: none, depends_on: [s0]}"
        services = "".join(f"  s{number}: {service}\n" for number in range(1, count))
        text = f"services:\n  s0: {{image: busybox, network_mode: none}}\n{services}"
        return project(f"name: {first}{count}\n{text}")

    bay.ok("ls")
    small, large = stack(100, "themes"), stack(500, "themes")
    try:
        plans = [spent(directory, "plan", status=2) for directory in (small, large)]
        assert plans[1] < 8 * plans[0], plans
        for directory in (small, large):
            bay.ok("create", cwd=directory)
        listings = [spent(directory, "ps", "-a", status=0) for directory in (small, large)]
        assert listings[1] < 8 * listings[0], listings
        one = [spent(directory, "ps", "-a", "s1", status=0) for directory in (small, large)]
        assert one[1] < 8 * one[0], one
        assert len(bay.containers(large)) == 500
    finally:
        for directory in (small, large):
            bay.ok("down", cwd=directory)


def test_theme_13_where_a_value_comes_from_is_told_and_what_it_hides(
    bay: Bay, project: Project
) -> None:
    directory = project(
        "services:\n"
        "  web:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    environment: {RELEASE: '${RELEASE:-none}', PASSED: null}\n",
        **{".env": "RELEASE=1\nPASSED=from-file\n", "before.env": "RELEASE=0\n"},
    )

    def inside() -> dict[str, str]:
        lines = bay.ok("exec", "-T", "web", "env", cwd=directory).splitlines()
        return dict(line.split("=", 1) for line in lines)

    bay.ok("up", "-d", cwd=directory, env={"RELEASE": "2"})
    assert inside()["RELEASE"] == "2"
    assert inside()["PASSED"] == "from-file"

    # A way back that is none, as the shell still says otherwise: it says so.
    args = ("--env-file", "before.env")
    told = bay(*args, "up", "-d", cwd=directory, env={"RELEASE": "2"})
    assert told.status == 0
    assert "RELEASE is set otherwise in the environment" in told.err
    assert "before.env:1" in told.err
    shown = bay.ok(*args, "config", "--explain", "RELEASE", cwd=directory, env={"RELEASE": "2"})
    assert "RELEASE=2\n  from the environment\n  hides '0' from" in shown
    assert "services.web.environment.RELEASE, default 'none'" in shown
    bay.ok(*args, "up", "-d", cwd=directory)
    assert inside()["RELEASE"] == "0"


def test_theme_14_secrets_have_their_owner_and_mode_and_are_nowhere_else(
    bay: Bay, project: Project
) -> None:
    secret = "quite-the-secret"
    directory = project(
        "services:\n"
        "  web:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    read_only: true\n"
        "    user: '1000:1000'\n"
        "    secrets:\n"
        "      - {source: filed, uid: '1000', gid: '1001', mode: 0400}\n"
        "      - {source: given, target: /run/given, uid: '1000', gid: '1002', mode: 0440}\n"
        "secrets:\n"
        "  filed: {file: ./token}\n"
        "  given: {environment: THEMES_GIVEN}\n",
        token=secret,
    )
    env = {"THEMES_GIVEN": secret}
    said = [bay("plan", cwd=directory, env=env), bay("up", "-d", cwd=directory, env=env)]

    look = "cat $1; stat -c ' %u:%g %a' $1; cat /proc/mounts"
    for path, owner in (("/run/secrets/filed", "1000:1001 400"), ("/run/given", "1000:1002 440")):
        seen = bay.ok("exec", "-T", "web", "sh", "-c", look, "sh", path, cwd=directory)
        content, *mounts = seen.splitlines()
        assert content == f"{secret} {owner}"
        assert any(line.split()[1:3] == [path, "tmpfs"] for line in mounts), mounts
    refused = bay("exec", "-T", "-u", "1005", "web", "cat", "/run/given", cwd=directory)
    assert refused.status == 1

    (directory / "token").write_text(f"another-{secret}")
    for args in (
        ("plan",),
        ("plan", "--format", "json"),
        ("up", "-d"),
        ("config",),
        ("config", "--format", "json"),
        ("ps", "-a", "--format", "json"),
        ("diff",),
        ("history", "--format", "json"),
        ("logs",),
        ("events", "--json", "--since", "1h", "--until", "0s"),
    ):
        said.append(bay(*args, cwd=directory, env=env))
    for result in said:
        assert secret not in result.out + result.err, str(result)
    assert any("secrets.filed content" in result.out for result in said)
    # What came from the environment must outlast a reboot: kept, but for root alone.
    keepers = [path for path in bay.root.rglob("*") if _holds(path, secret)]
    assert all(path.stat().st_mode & 0o077 == 0 for path in keepers), keepers
    assert not [path for path in keepers if "containers" in path.parts], keepers


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes()


def test_theme_15_merging_gives_the_same_every_time(bay: Bay, project: Project) -> None:
    directory = project(
        "include: [more.yaml]\n"
        "services:\n"
        "  web:\n"
        "    extends: {file: base.yaml, service: base}\n"
        "    ports: !override ['8002:80', '8001:80']\n"
        "    environment: {B: '2', A: '1'}\n"
        "    networks: [one, two]\n"
        "networks: {two: {}, one: {}}\n",
        **{
            "base.yaml": (
                "services:\n"
                "  older: {image: busybox, ports: ['7001:80'], environment: {Z: z, Y: y}}\n"
                "  base:\n"
                "    extends: older\n"
                "    ports: !override ['7002:80', '7003:80']\n"
                "    environment: {X: x}\n"
                "    volumes: ['./b:/b', './a:/a']\n"
                "    labels: !reset null\n"
            ),
            "more.yaml": "services:\n  side: {image: busybox, ports: ['6001:80', '6000:80']}\n",
            "compose.override.yaml": (
                "services:\n  web: {labels: {b: '2', a: '1'}, volumes: ['./c:/b']}\n"
            ),
        },
    )
    texts = {
        bay.ok("config", "--format", "json", cwd=directory, env={"PYTHONHASHSEED": str(seed)})
        for seed in range(12)
    }
    assert len(texts) == 1
    web = json.loads(texts.pop())["services"]["web"]
    assert [port["published"] for port in web["ports"]] == ["8002", "8001"]
    assert web["environment"] == {"A": "1", "B": "2", "X": "x", "Y": "y", "Z": "z"}
    assert {Path(v["source"]).name: v["target"] for v in web["volumes"]} == {"c": "/b", "a": "/a"}


def test_theme_20_what_a_file_asks_for_is_done_or_named(bay: Bay, project: Project) -> None:
    directory = project(
        "services:\n"
        "  db:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    volumes: ['.:/here']\n"
        "    healthcheck: {test: 'test -e /here/ready', interval: 50ms, retries: 10000}\n"
        "    storage_opt: {size: 1G}\n"
        "  web:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    isolation: hyperv\n"
        "    depends_on: {db: {condition: service_healthy}}\n"
    )
    with bay.started("up", "-d", cwd=directory) as up:
        assert up.stdout is not None
        seen: list[str] = []
        while "Waiting" not in (line := up.stdout.readline()):
            seen.append(line)
        # The dependent is not started as long as the other one is not healthy.
        states = {c["Service"]: c["State"] for c in bay.containers(directory).values()}
        assert states == {"db": "running", "web": "created"}
        (directory / "ready").touch()
        up.stdout.read()
        assert up.wait(60) == 0
    (warning,) = [line for line in seen if line.startswith("warning:")]
    assert "services.db.storage_opt" in warning and "services.web.isolation" in warning

    strict = bay("--strict", "up", "-d", cwd=directory)
    assert strict.status == 1
    assert "compose.yaml:8" in strict.err and "storage_opt" in strict.err
    assert "bound the file system of the state directory" in strict.err
    unknown = bay("-f", "-", "config", cwd=directory, stdin="services: {a: {imge: busybox}}\n")
    assert unknown.status == 1
    assert "imge" in unknown.err and "image" in unknown.err
