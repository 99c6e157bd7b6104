"""Images that a stack mounts into its containers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_STACK = """
services:
  web:
    image: debian:bookworm
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    volumes:
      - {type: image, source: site, target: /site, image: {subpath: srv}}
      - {type: image, source: debian:bookworm, target: /system}
  site:
    image: site:made-here
    build: {context: ./site, dockerfile_inline: "FROM scratch\\nCOPY . /srv/"}
    scale: 0
  other: {image: debian:bookworm, init: true, command: sleep 1000, stop_grace_period: 0s}
"""


def test_a_stack_mounts_what_it_builds_and_follows_it(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(_STACK)
    page = directory / "site" / "page"
    page.parent.mkdir()
    page.write_text("first\n")

    bay.ok("up", "-d", cwd=directory)
    read = ("exec", "-T", "web", "cat", "/site/page", "/system/etc/debian_version")
    assert bay.ok(*read, cwd=directory).startswith("first\n12.")
    written = bay("exec", "-T", "web", "sh", "-c", "echo x > /site/page", cwd=directory)
    assert written.status != 0 and "Read-only file system" in written.err
    assert bay("plan", cwd=directory).status == 0
    before = bay.containers(directory)

    page.write_text("second\n")
    bay.ok("up", "-d", "--build", cwd=directory)
    assert bay.ok(*read, cwd=directory).startswith("second\n12.")
    after = bay.containers(directory)
    (web, other) = (f"{directory.name}-{service}-1" for service in ("web", "other"))
    assert after[web]["ID"] != before[web]["ID"]
    assert after[other]["ID"] == before[other]["ID"]

    kept = bay("image", "rm", "site:made-here")
    assert kept.status == 1 and web in kept.err
    bay.ok("restart", "web", cwd=directory)
    bay.ok("cp", "web:/site/page", "copied", cwd=directory)
    assert (directory / "copied").read_text() == "second\n"


def test_an_undone_rollout_mounts_the_image_that_it_had(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(_STACK.replace("scale: 0", "scale: 0\n    pull_policy: missing"))
    update = "    deploy: {update_config: {order: start-first, monitor: 200ms}}\n"
    compose = directory / "compose.yaml"
    compose.write_text(compose.read_text().replace("  site:\n", f"{update}  site:\n", 1))
    page = directory / "site" / "page"
    page.parent.mkdir()
    read = ("exec", "-T", "web", "cat", "/site/page")
    for text in ("first\n", "second\n"):
        page.write_text(text)
        bay.ok("up", "-d", "--build", cwd=directory)
        assert bay.ok(*read, cwd=directory) == text

    bay.ok("rollout", "undo", "web", cwd=directory)

    assert bay.ok(*read, cwd=directory) == "first\n"
    planned = bay("plan", cwd=directory)
    assert planned.status == 2 and "image /site content" in planned.out


def test_a_mounted_image_that_nobody_has_is_named(bay: Bay, project: Callable[..., Path]) -> None:
    directory = project(
        "services:\n  web:\n    image: debian:bookworm\n    volumes:\n"
        "      - {type: image, source: '127.0.0.1:1/no:where', target: /m}\n"
    )
    failed = bay("up", "-d", cwd=directory)
    assert failed.status == 1 and "127.0.0.1:1/no:where" in failed.err
    assert not bay.containers(directory)
    pulled = bay("pull", "--policy", "missing", cwd=directory)
    assert pulled.status == 1 and "127.0.0.1:1" in pulled.err
