"""A real git repository to take sources from, and sources of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.gitops.checkout import Checkout, check_out
from orchestrator.gitops.mirror import Mirror
from orchestrator.gitops.source import GitSource

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


class Repository:
    """A working copy at `path` on branch main; files are given as text, bytes or None."""

    def __init__(self, path: Path, **settings: str) -> None:
        self.path = path
        self.settings = {"user.name": "Ann", "user.email": "ann@example.org", **settings}
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str, given: bytes | None = None) -> str:
        settings = [word for item in self.settings.items() for word in ("-c", "=".join(item))]
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "HOME": "/nonexistent",
        }
        done = subprocess.run(
            ("git", "-C", str(self.path), *settings, *words),
            input=given,
            capture_output=True,
            check=False,
            env=environ,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def commit(
        self, files: Mapping[str, str | bytes | None] | None = None, message: str = "a change"
    ) -> str:
        """Write files (None removes one), commit everything, and give the commit's name."""
        for name, content in (files or {}).items():
            place = self.path / name
            if content is None:
                place.unlink()
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def commit_tree(
        self, entries: list[tuple[str, str, str]], message: str = "made by hand"
    ) -> str:
        """A commit of a tree that git's own commands would refuse: (mode, name, object)."""
        tree = b"".join(
            f"{mode} {name}\0".encode() + bytes.fromhex(object_name)
            for mode, name, object_name in entries
        )
        name = self.git("hash-object", "--literally", "-w", "-t", "tree", "--stdin", given=tree)
        commit = self.git("commit-tree", name, "-m", "made by hand")
        self.git("update-ref", "refs/heads/main", commit)
        return commit

    def blob(self, content: str) -> str:
        return self.git("hash-object", "-w", "--stdin", given=content.encode())

    def source(self, **changes: Any) -> GitSource:
        return GitSource.model_validate({"name": "shop", "url": str(self.path), **changes})

    def mirror(self, directory: Path, **changes: Any) -> Mirror:
        return Mirror(directory, self.source(**changes))


async def taken(mirror: Mirror, root: Path) -> Checkout:
    """What the mirror's source has now, checked out below `root`."""
    revision = await mirror.fetch()
    return await check_out(mirror, revision.commit, root)
