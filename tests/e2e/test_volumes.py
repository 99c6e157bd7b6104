"""Parts of volumes, mounted by their path in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

_FILL = "mkdir -p releases/1; echo one > releases/1/page; ln -s releases/1 current; ln -s /etc out"


def _service(subpath: str) -> str:
    mount = f"{{type: volume, source: data, target: /www, volume: {{subpath: {subpath}}}}}"
    return f"{{image: debian:bookworm, init: true, command: sleep 1000, volumes: [{mount}]}}"


def test_a_part_of_a_volume_is_mounted_and_no_link_leads_out_of_it(
    bay: Bay, project: Callable[..., Path]
) -> None:
    directory = project(
        "services:\n"
        f"  fill: {{image: debian:bookworm, command: [sh, -c, '{_FILL}'],"
        " working_dir: /data, volumes: ['data:/data']}\n"
        f"  web: {_service('current')}\n"
        f"  outside: {_service('out')}\n"
        f"  missing: {_service('nowhere')}\n"
        f"  above: {_service('../other')}\n"
        "volumes: {data: }\n"
    )
    bay.ok("run", "--rm", "-T", "fill", cwd=directory)

    bay.ok("up", "-d", "web", cwd=directory)
    assert bay.ok("exec", "-T", "web", "cat", "/www/page", cwd=directory) == "one\n"
    bay.ok("exec", "-T", "web", "sh", "-c", "echo two > /www/page", cwd=directory)
    shown = ("run", "--rm", "-T", "fill", "cat", "/data/releases/1/page")
    assert bay.ok(*shown, cwd=directory) == "two\n"
    for service, why in (
        ("outside", "a link there leads out"),
        ("missing", "no such file or directory"),
        ("above", "leads out of the volume"),
    ):
        refused = bay("up", "-d", service, cwd=directory)
        assert refused.status and why in refused.err, str(refused)
