"""`bay cp`, in and out."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


@pytest.fixture
def stack(bay: Bay, project: Callable[..., Path]) -> Path:
    directory = project(
        "services:\n  web: {image: debian:bookworm, init: true, command: sleep 1000}\n"
    )
    bay.ok("up", "-d", "--scale", "web=2", cwd=directory)
    return directory


def test_files_go_in_to_every_replica_and_come_out_of_one(bay: Bay, stack: Path) -> None:
    (stack / "note").write_text("hello\n")

    bay.ok("cp", "note", "web:/tmp/", cwd=stack)
    for number in ("1", "2"):
        shown = bay.ok("exec", "--index", number, "web", "cat", "/tmp/note", cwd=stack)
        assert shown == "hello\n"
    bay.ok("cp", "--index", "2", "web:/tmp/note", "./back", cwd=stack)
    assert (stack / "back").read_text() == "hello\n"
    bay.ok("stop", "-t", "0", cwd=stack)
    bay.ok("cp", "web:/etc/debian_version", ".", cwd=stack)
    assert (stack / "debian_version").read_text().startswith("12")


def test_streams_and_mistakes(bay: Bay, stack: Path) -> None:
    done = subprocess.run(
        bay.command("cp", "web:/etc/apt", "-"),
        cwd=stack,
        capture_output=True,
        timeout=60,
        check=True,
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        names = tar.getnames()
    assert "apt" in names and any(name.startswith("apt/") for name in names)
    subprocess.run(
        bay.command("cp", "--index", "1", "-", "web:/mnt"),
        cwd=stack,
        input=done.stdout,
        timeout=60,
        check=True,
    )
    assert "apt" in bay.ok("exec", "web", "ls", "/mnt", cwd=stack)

    missing = bay("cp", "web:/nothing", ".", cwd=stack)
    assert missing.status == 1 and "no such file" in missing.err
    assert bay("cp", "a", "b", cwd=stack).status == 1
    assert bay("cp", "nobody:/etc", ".", cwd=stack).status == 1
