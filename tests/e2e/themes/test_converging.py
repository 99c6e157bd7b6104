"""Themes 1 to 4, 7 and 8: what an `up` does, does not do, and says beforehand."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.supervisor.visitors import visitors

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

Project = Callable[..., Path]
Planned = Callable[..., list[str]]
Ids = Callable[[Path], dict[str, str]]

PORT = 38101

WEB = f"""
services:
  web:
    image: busybox
    init: true
    environment: {{TEXT: one}}
    command:
      - sh
      - -c
      - mkdir /tmp/www; echo $$TEXT > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www
    ports: ["{PORT}:80"]
    healthcheck: {{test: "test $$TEXT != bad", interval: 100ms, retries: 2}}
    stop_grace_period: 2s
    deploy:
      replicas: 2
      update_config: {{order: start-first, failure_action: rollback}}
    x-bayplan: {{drain: 2}}
"""


def change(directory: Path, old: str, new: str) -> None:
    path = directory / "compose.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_theme_01_an_update_never_leaves_a_service_without_an_answer(
    bay: Bay, project: Project, ids: Ids
) -> None:
    directory = project(WEB)
    bay.ok("up", "-d", "--wait", cwd=directory)

    with visitors(bay.host.netns, PORT) as told:
        change(directory, "TEXT: one", "TEXT: two")
        bay.ok("up", "-d", "--wait", cwd=directory)
        good = ids(directory)
        change(directory, "TEXT: two", "TEXT: bad")
        failed = bay("up", "-d", "--wait", cwd=directory)

    assert told["lost"] == []
    assert set(told["seen"]) == {"one", "two"}
    assert failed.status == 1
    assert "unhealthy" in failed.err and "rolled back" in failed.err, failed.err
    assert ids(directory) == good


def test_theme_01_a_service_that_writes_to_a_volume_never_runs_twice_unless_asked_to(
    bay: Bay, project: Project, planned: Planned
) -> None:
    directory = project(
        "services:\n"
        "  db:\n"
        "    image: busybox\n"
        "    environment: {TEXT: one}\n"
        "    init: true\n"
        "    volumes: [data:/data]\n"
        "    deploy: {update_config: {failure_action: rollback}}\n"
        "volumes: {data: {}}\n"
    )
    bay.ok("up", "-d", cwd=directory)

    change(directory, "TEXT: one", "TEXT: two")
    steps = planned(directory)

    stopped = next(n for n, text in enumerate(steps) if text.startswith("stop container"))
    started = next(n for n, text in enumerate(steps) if text.startswith("start container"))
    assert stopped < started, steps


def test_theme_02_what_means_the_same_is_not_recreated(
    bay: Bay, project: Project, planned: Planned, ids: Ids
) -> None:
    directory = project(
        "services:\n"
        "  web:\n"
        "    image: busybox\n"
        "    env_file: [settings.env]\n"
        "    environment: [COLOUR=red, SIZE=1]\n"
        "    ports: ['127.0.0.1:38102:80']\n"
        "    volumes: ['./settings.env:/settings:ro']\n"
        "    command: sleep 1000\n"
        "    stop_grace_period: 0s\n"
        "  other: {image: busybox, stop_grace_period: 0s}\n",
        **{"settings.env": "# of old\nFROM_FILE=1\n"},
    )
    bay.ok("up", "-d", cwd=directory)
    before = ids(directory)

    # The same by other words: another order, other notations, comments, profiles, extensions.
    (directory / "settings.env").write_text("FROM_FILE='1'  # of new\n")
    (directory / "compose.yaml").write_text(
        "x-note: none of the containers' business\n"
        "services:\n"
        "  other: {image: busybox, stop_grace_period: 0s, x-owner: me}\n"
        "  extra: {image: busybox, profiles: [debug]}\n"
        "  web:\n"
        "    stop_grace_period: 0ms\n"
        "    command: [sleep, '1000']\n"
        "    depends_on: [other]\n"
        "    volumes:\n"
        "      - {type: bind, source: ./settings.env, target: /settings, read_only: true}\n"
        "    ports:\n"
        "      - {target: 80, published: '38102', host_ip: 127.0.0.1}\n"
        "    environment: {SIZE: '1', COLOUR: red}\n"
        "    env_file: [{path: ./settings.env, required: true}]\n"
        "    image: busybox\n"
    )

    assert planned(directory) == []
    bay.ok("up", "-d", cwd=directory)
    assert ids(directory) == before


def test_theme_02_an_upgrade_of_the_tool_recreates_nothing(
    bay: Bay, project: Project, planned: Planned, ids: Ids
) -> None:
    directory = project(
        "services:\n"
        "  web: {image: busybox, init: true, environment: {A: '1'}, labels: {b: '2'}}\n"
        "  db: {image: busybox, init: true, volumes: [data:/data], read_only: true}\n"
        "volumes: {data: {}}\n"
    )
    bay.ok("up", "-d", cwd=directory)
    before = ids(directory)

    # Another version's idea of the canonical form: more defaults are spelt out, in another order.
    bay.ok("daemon", "stop")
    with closing(sqlite3.connect(bay.root / "state.db")) as state, state:
        for id, text in state.execute("SELECT id, spec FROM containers").fetchall():
            spec = json.loads(text)
            new: dict[str, Any] = {
                "a_field_of_tomorrow": None,
                "tty": False,
                "privileged": False,
                "cap_add": [],
            }
            spec["service"] = dict(reversed((spec["service"] | new).items()))
            state.execute("UPDATE containers SET spec = ? WHERE id = ?", (json.dumps(spec), id))

    assert planned(directory) == []
    bay.ok("up", "-d", cwd=directory)
    assert ids(directory) == before


def test_theme_03_changed_contents_recreate_who_uses_them_and_nobody_else(
    bay: Bay, project: Project, planned: Planned, ids: Ids
) -> None:
    services = {
        "inline": "configs: [inline]",
        "file": "configs: [file]",
        "secret": "secrets: [secret]",
        "env": "env_file: [some.env]",
        "label": "label_file: [some.labels]",
        "built": 'build: {context: ., dockerfile_inline: "FROM busybox\\nCOPY part /part"}',
        "plain": "image: busybox",
    }
    text = "services:\n"
    for name, line in services.items():
        image = "" if "busybox" in line.lower() else "    image: busybox\n"
        text += f"  {name}:\n    init: true\n    stop_grace_period: 0s\n{image}    {line}\n"
    text += (
        "configs: {inline: {content: old}, file: {file: ./some.conf}}\n"
        "secrets: {secret: {file: ./some.secret}}\n"
    )
    files = {"some.conf": "old", "some.secret": "old", "part": "old"}
    files |= {"some.env": "A=old", "some.labels": "a=old"}
    directory = project(text, **files)
    bay.ok("up", "-d", "--build", cwd=directory)
    changes = {
        "inline": ("compose.yaml", "content: old", "configs.inline content"),
        "file": ("some.conf", "old", "configs.file content"),
        "secret": ("some.secret", "old", "secrets.secret content"),
        "env": ("some.env", "old", "environment.A: old → new"),
        "label": ("some.labels", "old", "labels.a: old → new"),
        "built": ("part", "old", "image id"),
    }

    for name, (file, old, cause) in changes.items():
        before = ids(directory)
        path = directory / file
        path.write_text(path.read_text().replace(old, old.replace("old", "new")))
        told = bay("up", "-d", "--build", "--dry-run", cwd=directory).out
        if name != "built":
            assert cause in told, told
        bay.ok("up", "-d", "--build", cwd=directory)
        after = ids(directory)
        changed = {key.removesuffix("-1") for key in before if before[key] != after[key]}
        assert changed == (set() if name == "label" else {name})
        assert planned(directory) == []
    assert bay.ok("exec", "secret", "cat", "/run/secrets/secret", cwd=directory) == "new"
    assert bay.ok("exec", "built", "cat", "/part", cwd=directory) == "new"


def test_theme_04_a_preview_changes_nothing_and_says_exactly_what_up_then_does(
    bay: Bay, project: Project, ids: Ids, history: Callable[[str], list[dict[str, Any]]]
) -> None:
    directory = project(
        "services:\n"
        "  db: {image: busybox, init: true, stop_grace_period: 0s}\n"
        "  web:\n"
        '    build: {context: ., dockerfile_inline: "FROM busybox\\nRUN touch /built"}\n'
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    environment: {MODE: a}\n"
        "    depends_on: [db]\n"
    )

    def preview(status: int) -> str:
        told, dry = bay("plan", cwd=directory), bay("up", "-d", "--dry-run", cwd=directory)
        assert (told.status, dry.status) == (status, status), str(told)
        assert told.out == dry.out
        return told.out.strip()

    def up() -> str:
        """What it planned and then did."""
        before = len(history(directory.name))
        bay.ok("up", "-d", cwd=directory)
        plan, *steps = history(directory.name)[before:]
        done = [step["id"] for step in steps if step["status"] == "done"]
        assert sorted(done) == list(range(1, plan["steps"] + 1))
        return str(plan["text"])

    first = preview(2)
    assert ids(directory) == {}
    assert directory.name not in bay.ok("image", "ls") + bay.ok("network", "ls") + bay.ok("ls")
    assert up() == first
    assert preview(0) == f"{directory.name}: nothing to do"

    before = ids(directory)
    change(directory, "MODE: a", "MODE: b")
    second = preview(2)
    assert "environment.MODE: a → b" in second
    assert ids(directory) == before
    assert up() == second
    assert {name for name, id in ids(directory).items() if before[name] != id} == {"web-1"}
    change(directory, "services:", "servces:")
    assert bay("plan", cwd=directory).status == 1
    change(directory, "servces:", "services:")


def test_theme_07_a_job_that_completed_satisfies_wait_and_is_not_run_again(
    bay: Bay, project: Project
) -> None:
    directory = project(
        "services:\n"
        "  migrate:\n"
        "    image: busybox\n"
        "    environment: {RELEASE: '1'}\n"
        "    volumes: ['.:/here']\n"
        "    command: [sh, -c, 'echo $$RELEASE >> /here/runs; exit $${STATUS:-0}']\n"
        "  web:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    stop_grace_period: 0s\n"
        "    depends_on: {migrate: {condition: service_completed_successfully}}\n"
    )
    for _ in range(3):
        bay.ok("up", "-d", "--wait", cwd=directory)
    bay.ok("restart", "-t", "0", "web", cwd=directory)
    bay.ok("up", "-d", "--force-recreate", "--no-deps", "web", cwd=directory)
    assert (directory / "runs").read_text().split() == ["1"]
    assert bay("status", cwd=directory).status == 0

    change(directory, "RELEASE: '1'", "RELEASE: '2'")
    bay.ok("up", "-d", "--wait", cwd=directory)
    assert (directory / "runs").read_text().split() == ["1", "2"]

    change(directory, "RELEASE: '2'", "RELEASE: '3', STATUS: '4'")
    failed = bay("up", "-d", "--wait", cwd=directory)
    assert failed.status == 1
    assert "migrate-1" in failed.err and "exited with 4" in failed.err, failed.err


def test_theme_08_orphans_of_one_file_are_removed_and_another_file_s_services_are_not(
    bay: Bay, project: Project, tmp_path: Path
) -> None:
    service = "image: busybox, init: true, stop_grace_period: 0s"
    one = project(f"services:\n  web: {{{service}}}\n  old: {{{service}}}\n")
    two = tmp_path / "two.yaml"
    two.write_text(f"services:\n  worker: {{{service}}}\n")
    bay.ok("-p", one.name, "up", "-d", cwd=one)
    other = bay("-p", one.name, "-f", str(two), "up", "-d", "--remove-orphans", cwd=one)
    assert other.status == 0 and "other files" in other.err, str(other)
    assert _services(bay, one) == ["old", "web", "worker"]

    change(one, f"  old: {{{service}}}\n", "")
    told = bay("-p", one.name, "up", "-d", cwd=one)
    assert f"{one.name}-old-1" in told.err and "--remove-orphans" in told.err
    assert f"{one.name}-worker-1; --remove-orphans" not in told.err
    assert _services(bay, one) == ["old", "web", "worker"]
    bay.ok("-p", one.name, "up", "-d", "--remove-orphans", cwd=one)
    assert _services(bay, one) == ["web", "worker"]


def _services(bay: Bay, directory: Path) -> list[str]:
    return sorted(record["Service"] for record in bay.containers(directory).values())
