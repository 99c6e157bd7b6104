"""A disk that is full in the middle of a fetch, a checkout or a switch, and has room again."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.gitops.errors import GitOpsError
from orchestrator.gitops.repository import GitRepository
from tests.integration.gitops.repository import Repository, needs_git

pytestmark = [needs_git, pytest.mark.root]

COMPOSE = "services: {web: {image: app, volumes: ['./conf:/conf']}}\n"
NOISE = random.Random(1)


class Disk:
    """A file system in memory, of a size that changes."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def resize(self, size: int) -> None:
        """In KiB."""
        words = ("mount", "-o", f"remount,size={size}k", str(self.place))
        subprocess.run(words, check=True)

    def leave(self, room: int) -> None:
        """Have just so many KiB be free."""
        found = os.statvfs(self.place)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
        self.resize(used + room)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=64m", "disk", str(place)), check=True)
    yield Disk(place)
    subprocess.run(("umount", str(place)), check=True)


def noise(size: int) -> bytes:
    """KiB that nothing makes smaller."""
    return NOISE.randbytes(size * 1024)


async def step(call: Any) -> GitOpsError | None:
    """What a call raised, which has to be something that is tried again."""
    try:
        await call
    except GitOpsError as exc:
        assert exc.transient, repr(exc)
        return exc
    return None


def test_a_full_disk_leaves_what_stood_and_passes(tmp_path: Path, disk: Disk) -> None:
    upstream = Repository(tmp_path / "upstream")
    mirror = upstream.mirror(disk.place / "unused")
    source = GitRepository(mirror.source, disk.place, tmp_path / "run", {})
    conf = disk.place / "gitops" / source.source.name / "tree" / "conf"

    async def bring() -> GitOpsError | None:
        """Fetch, render and switch, as far as there is room."""
        found = await step(source.fetch(accept_rewrite=False))
        if found is None:
            commit = upstream.head()
            found = await step(source.render(commit))
            if found is None:
                projects = await source.render(commit)
                found = await step(source.switch(commit, projects))
        return found

    async def everything() -> None:
        upstream.commit(
            {"compose.yaml": COMPOSE, "conf/a": "1", "conf/b": "1", "conf/noise": noise(16)}
        )
        assert await bring() is None
        good = {name.name: name.read_bytes() for name in conf.iterdir()}
        # A fetch has room, but not what follows: as much as the objects take, and a little more.
        for number, room in enumerate((8, 256, 1100, 1500, 2100, 2500, 3100)):
            upstream.commit({"conf/a": f"{number}", "conf/noise": noise(1024)})
            disk.leave(room)
            failed = await bring()
            if failed is not None:
                seen.append(type(failed).__name__)
                assert (conf / "a").read_bytes() == good["a"]
                assert (conf / "noise").read_bytes() == good["noise"]
            disk.resize(64 * 1024)
            assert await bring() is None
            good = {name.name: name.read_bytes() for name in conf.iterdir()}
            assert good["a"] == f"{number}".encode()
        left = [name for name in os.listdir(conf) if name not in ("a", "b", "noise")]
        assert not left

    seen: list[str] = []
    asyncio.run(everything())
    # Of git's doing, and of ours.
    assert {"GitFailed", "HostFailed"} <= set(seen), seen
