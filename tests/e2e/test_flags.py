"""Flags of run, up, logs and build that people rely on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_STACK = """
services:
  db: {image: debian:bookworm, init: true, command: [sh, -c, 'echo $$HOSTNAME; exec sleep 1000']}
  web:
    image: debian:bookworm
    init: true
    command: sleep 1000
    ports: ["127.0.0.1:39480:80"]
    networks: {default: {aliases: [front]}}
    profiles: [web]
  base:
    build: {context: ., dockerfile_inline: "FROM debian:bookworm\\nENV MADE=first"}
    command: sh -c 'echo $$MADE'
    profiles: [build]
  derived:
    build: {context: ., dockerfile_inline: "FROM debian:bookworm\\nENV MADE=second"}
    depends_on: [base]
    profiles: [build]
"""


@pytest.fixture(scope="module")
def stack(bay: Bay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("flags")
    (directory / "compose.yaml").write_text(_STACK)
    bay.ok("up", "-d", "--scale", "db=2", cwd=directory)
    yield directory
    bay.ok("down", "-t", "0", "--rmi", "local", cwd=directory)


def resolves(bay: Bay, stack: Path, name: str) -> bool:
    return bay("exec", "-T", "db", "getent", "hosts", name, cwd=stack).status == 0


def test_a_one_off_container_has_the_ports_and_names_of_its_service_only_if_asked(
    bay: Bay, stack: Path
) -> None:
    plain = bay.ok("run", "-d", "web", "sleep", "1000", cwd=stack).strip()
    assert bay.containers(stack)[plain]["Ports"] == ""
    assert not resolves(bay, stack, "web") and not resolves(bay, stack, "front")

    asked = bay.ok("run", "-d", "-P", "--use-aliases", "web", "sleep", "1000", cwd=stack).strip()
    assert bay.containers(stack)[asked]["Ports"] == "127.0.0.1:39480->80/tcp"
    assert resolves(bay, stack, "web") and resolves(bay, stack, "front")
    bay.ok("rm", "-f", "-s", "-t", "0", "web", cwd=stack)


def test_a_one_off_container_has_the_capabilities_that_it_is_given(bay: Bay, stack: Path) -> None:
    caps = ("--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN")
    shown = bay.ok(
        "run", "--rm", "-T", *caps, "web", "grep", "CapEff", "/proc/self/status", cwd=stack
    )
    effective = int(shown.split()[1], 16)
    assert effective & 1 << 12, "CAP_NET_ADMIN"
    assert not effective & 1 << 0, "CAP_CHOWN"


def test_a_run_builds_or_pulls_first_if_asked(bay: Bay, stack: Path) -> None:
    compose = stack / "compose.yaml"
    run = ("run", "--rm", "-T", "base")
    assert bay.ok(*run, cwd=stack) == "first\n"
    compose.write_text(_STACK.replace("MADE=first", "MADE=anew"))
    assert bay.ok("run", "--rm", "-T", "--build", "base", cwd=stack) == "anew\n"

    compose.write_text(_STACK.replace("image: debian:bookworm", "image: 127.0.0.1:1/no:where", 1))
    never = bay("run", "--rm", "--pull", "never", "db", "true", cwd=stack)
    assert never.status == 1 and "127.0.0.1:1/no:where" in never.err, str(never)
    always = bay("run", "--rm", "--pull", "always", "db", "true", cwd=stack)
    assert always.status == 1 and "127.0.0.1:1" in always.err, str(always)
    compose.write_text(_STACK)


def test_logs_of_one_replica(bay: Bay, stack: Path) -> None:
    first = bay.ok("logs", "--index", "1", "--no-log-prefix", "db", cwd=stack)
    second = bay.ok("logs", "--index", "2", "--no-log-prefix", "db", cwd=stack)
    assert first != second
    assert {*first.split(), *second.split()} == {
        bay.ok("exec", "-T", "--index", number, "db", "hostname", cwd=stack).strip()
        for number in ("1", "2")
    }
    missing = bay("logs", "--index", "3", "db", cwd=stack)
    assert missing.status == 1 and "db has no container number 3" in missing.err
    assert bay("logs", "--index", "1", cwd=stack).status == 1


def test_a_build_takes_dependencies_along_only_if_asked(bay: Bay, stack: Path) -> None:
    images = tuple(f"{stack.name}-{service}" for service in ("base", "derived"))
    for image in images:
        bay("image", "rm", image)

    def there() -> list[bool]:
        return [bay("image", "history", image).status == 0 for image in images]

    bay.ok("build", "-q", "derived", cwd=stack)
    assert there() == [False, True]
    bay.ok("build", "-q", "--with-dependencies", "derived", cwd=stack)
    assert there() == [True, True]


def test_up_shows_what_dependencies_say_only_if_asked(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(
        "services:\n"
        "  store: {image: debian:bookworm, command: echo from the store}\n"
        "  web: {image: debian:bookworm, command: echo from the web, depends_on: [store]}\n"
    )
    alone = bay.ok("up", "web", cwd=directory)
    assert "from the web" in alone and "from the store" not in alone
    bay.ok("down", cwd=directory)
    both = bay.ok("up", "--attach-dependencies", "web", cwd=directory)
    assert "from the web" in both and "from the store" in both


_FORMER = """
import sys
import orchestrator.version
orchestrator.version.VERSION = "0.0.1"
from orchestrator.supervisor import daemon
sys.exit(daemon.main(sys.argv[1:]))
"""


def test_a_daemon_of_another_version_is_replaced_and_containers_go_on(
    bay: Bay, stack: Path
) -> None:
    before = {name: record["ID"] for name, record in bay.containers(stack).items()}
    bay.ok("daemon", "stop")
    ready, child = os.pipe()
    places = ("--root", str(bay.root), "--run", str(bay.run_directory), "--ready-fd", str(child))
    with subprocess.Popen(
        bay.host.inside(sys.executable, "-I", "-c", _FORMER, *places), pass_fds=(child,)
    ) as former:
        os.close(child)
        assert os.read(ready, 1), "the former daemon serves"
        os.close(ready)

        shown = bay("ps", "--format", "{{.Name}} {{.State}}", cwd=stack)

        assert former.wait(30) == 0
    assert shown.status == 0, str(shown)
    assert "the daemon is bayplan/0.0.1" in shown.err and "in its place" in shown.err
    assert shown.out.split() == [word for name in sorted(before) for word in (name, "running")]
    assert {name: record["ID"] for name, record in bay.containers(stack).items()} == before
    assert "the daemon is" not in bay("ps", cwd=stack).err
