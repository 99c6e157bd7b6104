"""A disk without any room: what runs can be stopped and taken down, which makes room."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.supervisor.harbour import Harbour
from tests.integration.supervisor.test_crashes import stack


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", tmp_path], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def fill(place: Path) -> None:
    with place.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(os.urandom(size))
            except OSError as exc:
                assert exc.errno == errno.ENOSPC


@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "by the next daemon"])
def test_a_stack_is_taken_down_on_a_full_disk(
    harbour: Harbour, tmp_path: Path, restarted: bool
) -> None:
    harbour.up(stack())
    fill(tmp_path / "filler")
    if restarted:
        harbour.kill()
        harbour.start()
    ended = harbour.result("down", options={"volumes": True, "timeout": 0})
    assert ended["ok"], ended
    assert harbour.containers() == {}
    (tmp_path / "filler").unlink()
    harbour.up(stack())
