"""A source's repository on this host: from a commit to projects, and where its secrets are."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.gitops.errors import RefNotFound
from orchestrator.gitops.repository import GitRepository
from orchestrator.gitops.source import GitSource, Ref

SPEC = """
services:
  web:
    image: app
    secrets: [token]
    volumes: ['./conf:/conf']
secrets:
  token: {environment: TOKEN}
"""
TOKEN = "a-token-that-only-memory-holds"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("needs a /dev/shm to write to")
    place = shared / f"bay-test-{uuid.uuid4().hex}"
    place.mkdir()
    yield place
    shutil.rmtree(place)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with one commit."""
    place = tmp_path / "work"
    (place / "conf").mkdir(parents=True)
    (place / "compose.yaml").write_text(SPEC)
    (place / "conf" / "colour").write_text("red\n")
    git(place, "init", "-q", "-b", "main")
    commit(place)
    return place


def git(place: Path, *words: str) -> str:
    environ = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": "/dev/null",
        **{
            f"GIT_{who}_{what}": "a@b"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    done = subprocess.run(
        ["git", *words], cwd=place, env=environ, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(place: Path) -> str:
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "a change")
    return git(place, "rev-parse", "HEAD")


def repository(work: Path, tmp_path: Path, memory: Path, branch: str = "main") -> GitRepository:
    source = GitSource(
        name="shop", url=str(work), ref=Ref(branch=branch), environment={"TOKEN": None}
    )
    return GitRepository(source, tmp_path / "root", memory, {"TOKEN": TOKEN, "OTHER": "x"})


def test_a_commit_becomes_projects_and_its_secrets_stay_in_memory(
    work: Path, tmp_path: Path, memory: Path
) -> None:
    found = repository(work, tmp_path, memory)

    async def main() -> None:
        head = await found.probe()
        revision = await found.fetch(accept_rewrite=False)
        assert revision.commit == head == git(work, "rev-parse", "HEAD")
        projects = await found.render(head)
        assert list(projects) == ["shop"]
        assert TOKEN not in str(projects)
        file = Path(projects["shop"]["secrets"]["token"]["file"])
        assert file.read_text() == TOKEN and file.is_relative_to(memory)

        assert not (found.home / "tree").exists()
        await found.switch(head, projects)
        assert (found.home / "tree" / "conf" / "colour").read_text() == "red\n"

        # As after the host has started anew.
        shutil.rmtree(memory / "decrypted")
        await found.switch(head, projects)
        assert file.read_text() == TOKEN

        await found.retain({head: projects})
        assert file.exists()
        (work / "conf" / "colour").write_text("blue\n")
        newer = commit(work)
        await found.fetch(accept_rewrite=False)
        projects = await found.render(newer)
        await found.switch(newer, projects)
        assert (found.home / "tree" / "conf" / "colour").read_text() == "blue\n"
        await found.retain({newer: projects})
        assert sorted(p.name for p in (found.home / "commits").iterdir() if p.is_dir()) == [newer]
        assert [c.commit for c in await found.log(head, newer)] == [newer]

        await found.remove(tree=False)
        assert (found.home / "tree" / "conf" / "colour").exists() and file.exists()
        await found.remove(tree=True)
        assert not found.home.exists() and not file.exists()

    asyncio.run(main())
    on_disk = [p for p in tmp_path.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    assert on_disk == []


def test_a_reference_that_is_not_there_is_an_error(
    work: Path, tmp_path: Path, memory: Path
) -> None:
    found = repository(work, tmp_path, memory, branch="other")
    with pytest.raises(RefNotFound, match="has no branch other"):
        asyncio.run(found.probe())


def test_a_preview_and_letting_go_leave_a_commit_that_is_being_checked_out_whole(
    work: Path, tmp_path: Path, memory: Path
) -> None:
    (work / "compose.yaml").write_text("services: {web: {image: app, volumes: ['./many:/many']}}")
    (work / "many").mkdir()
    for number in range(200):
        (work / "many" / str(number)).write_text(str(number))
    head = commit(work)

    async def at_once() -> None:
        ours = repository(work, tmp_path, memory)
        redefined = repository(work, tmp_path, memory)
        await ours.fetch(accept_rewrite=False)
        one, two, other, _ = await asyncio.gather(
            ours.render(head), ours.render(head), redefined.render(head), ours.retain({})
        )
        assert one == two == other
        await asyncio.gather(ours.switch(head, one), redefined.switch(head, one), ours.retain({}))

    asyncio.run(at_once())
    assert len(os.listdir(tmp_path / "root/gitops/shop/tree/many")) == 200
