"""Daemons for real: root, namespaces, control groups and a static busybox are needed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.supervisor.harbour import BUSYBOX, Harbour


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    """A daemon that runs; at the end the project is taken down, and nothing may be left."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces and runs containers")
    if not BUSYBOX.exists():
        pytest.skip(f"{BUSYBOX} is not installed (Debian: busybox-static)")
    netns = f"bay_sup_{os.getpid()}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True)
        harbour = Harbour(tmp_path, netns)
        harbour.start()
        try:
            yield harbour
        finally:
            if not harbour.alive:
                harbour.start()
            gone = harbour.result("down", options={"volumes": True, "timeout": 0})
            harbour.stop()
        assert gone["ok"], gone
        # The kernel takes links away by itself, some time after their namespace.
        deadline = time.monotonic() + 60
        while (left := harbour.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []
    finally:
        subprocess.run(["ip", "netns", "delete", netns], check=True)
