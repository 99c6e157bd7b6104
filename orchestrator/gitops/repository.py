"""A source's repository on this host: its mirror, its checkouts, and what is decrypted of it.

<root>/gitops/<source>/mirrors/<id>/   the bare mirror, one for each address
<root>/gitops/<source>/commits, tree   see `checkout`
<run>/decrypted/<source>/              see `vault`
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.engine.errors import SHORTAGES
from orchestrator.gitops import checkout as checkouts
from orchestrator.gitops.errors import HostFailed, RefNotFound
from orchestrator.gitops.mirror import Mirror, Revision
from orchestrator.gitops.render import render
from orchestrator.gitops.source import GitSource, identifier
from orchestrator.gitops.switching import clear, switch
from orchestrator.gitops.vault import Vault
from orchestrator.gitops.verify import verify
from specs.locations import is_within
from specs.project import Project

_log = logging.getLogger(__name__)

DIRECTORY = "gitops"
DECRYPTED = "decrypted"
_REMEMBERED = 8

Projects = Mapping[str, Mapping[str, Any]]
"""Canonical projects by name."""


@contextlib.contextmanager
def _of_host(what: str, numbers: frozenset[int] | None = None) -> Iterator[None]:
    """Has an OSError, of these numbers or any, be a HostFailed."""
    try:
        yield
    except OSError as exc:
        if numbers is not None and exc.errno not in numbers:
            raise
        raise HostFailed(f"{what}: {exc}") from exc


_locks: weakref.WeakValueDictionary[Path, asyncio.Lock] = weakref.WeakValueDictionary()


class GitRepository:
    """`environ` is the daemon's environment, of which a stack sees what its source names.

    Checkouts are made, switched to and let go of one at a time, also where a person asks for a
    preview meanwhile, or the source has just got another definition.
    """

    def __init__(
        self, source: GitSource, root: Path, run: Path, environ: Mapping[str, str]
    ) -> None:
        self.source = source
        self.home = root / DIRECTORY / source.name
        self.mirror = Mirror(self.home / "mirrors" / identifier(source), source)
        self.vault = Vault(run / DECRYPTED / source.name)
        self._environ = environ
        self._fetched: dict[str, Revision] = {}
        self._lock = _locks.setdefault(self.home, asyncio.Lock())

    async def probe(self) -> str:
        """The commit that is wanted now; raises RefNotFound where there is none."""
        with _of_host(f"ask {self.source.url}"):
            found = await self.mirror.probe()
        if found is None:
            raise RefNotFound(f"{self.source.url} has no {self.source.ref}")
        return found

    async def fetch(self, *, accept_rewrite: bool) -> Revision:
        with _of_host(f"fetch {self.source.url}"):
            revision = await self.mirror.fetch(accept_rewrite=accept_rewrite)
        # A preview may fetch another one before this one is rendered.
        self._fetched.pop(revision.commit, None)
        self._fetched[revision.commit] = revision
        while len(self._fetched) > _REMEMBERED:
            del self._fetched[next(iter(self._fetched))]
        return revision

    async def render(self, commit: str) -> dict[str, dict[str, Any]]:
        """Verify and check out a commit, and give its projects in the order of their paths; what
        containers bind stays as it is."""
        with _of_host(f"render {commit[:12]}"):
            revision = self._fetched.get(commit) or await self.mirror.revision(commit)
            async with self._lock:
                await verify(self.mirror, revision)
                return await self._render(commit)

    async def _render(self, commit: str) -> dict[str, dict[str, Any]]:
        checkout = await checkouts.check_out(self.mirror, commit, self.home)
        loaded = await asyncio.to_thread(render, self.source, checkout, self._environ, self.vault)
        for item in loaded:
            for issue in (*item.warnings, *item.unsupported):
                _log.warning(
                    "source %s, project %s: %s", self.source.name, item.project.name, issue
                )
        projects = [await asyncio.to_thread(self._veil, item.project) for item in loaded]
        return {project.name: project.canonical() for project in projects}

    def _veil(self, project: Project) -> Project:
        """The project with the secrets that came from variables in memory, as those that were
        decrypted are: what is applied is stored on a disk."""
        secrets = dict(project.secrets)
        for name, secret in secrets.items():
            if secret.content is None:
                continue
            content = secret.content.encode()
            path = self.vault.path(content, name)
            if not path.exists():
                self.vault.put(path, content)
            changes = {"content": None, "environment": "", "file": str(path)}
            secrets[name] = secret.model_copy(update=changes)
        return project.model_copy(update={"secrets": secrets})

    async def recall(self, commit: str, projects: Projects) -> None:
        """Have what `projects` need decrypted be there: a reboot forgets what was in memory."""
        async with self._lock:
            await self._recall(commit, projects)

    async def _recall(self, commit: str, projects: Projects) -> None:
        if any(not os.path.exists(path) for path in self._decrypted(projects)):
            await self._render(commit)

    async def switch(self, commit: str, projects: Projects) -> None:
        """Have what containers bind be this commit's, and what `projects` need decrypted be
        there."""
        with _of_host(f"check out {commit[:12]}", SHORTAGES):
            async with self._lock:
                await self._recall(commit, projects)
                await switch(await checkouts.check_out(self.mirror, commit, self.home))

    async def retain(self, kept: Mapping[str, Projects]) -> None:
        """Hold on to these commits with what their projects need, and let go of others."""
        needed = [path for projects in kept.values() for path in self._decrypted(projects)]
        async with self._lock:
            await self.mirror.keep(kept)
            await asyncio.to_thread(checkouts.sweep, self.home, kept)
            await asyncio.to_thread(self.vault.sweep, needed)

    def _decrypted(self, projects: Projects) -> Iterable[str]:
        directory = str(self.vault.directory)
        for spec in projects.values():
            for secret in (spec.get("secrets") or {}).values():
                path = str(secret.get("file") or "")
                if path and is_within(path, (directory,)):
                    yield path

    async def log(self, since: str | None, until: str) -> list[Revision]:
        """The commits after `since` up to `until`, newest first."""
        return await self.mirror.log(since, until)

    async def remove(self, *, tree: bool) -> None:
        """Let go of everything; without `tree` what containers have stays theirs, and what they
        have written themselves always does."""
        async with self._lock:
            for part in ("mirrors", "commits"):
                await asyncio.to_thread(shutil.rmtree, self.home / part, ignore_errors=True)
            if not tree:
                return
            await asyncio.to_thread(self.vault.close)
            if await clear(self.home):
                place = self.home / "tree"
                _log.warning(
                    "source %s: what containers wrote stays in %s", self.source.name, place
                )
            else:
                await asyncio.to_thread(shutil.rmtree, self.home, ignore_errors=True)
