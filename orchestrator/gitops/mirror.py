"""A source's bare mirror: what the wanted reference is now, fetched and looked into.

Only the wanted reference is fetched, with its whole history, so that the log and a way back
need no server. What was fetched last is kept under a reference of its own (`refs/bayplan/taken`),
to tell whether the history goes on from it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from orchestrator.gitops import semver
from orchestrator.gitops.errors import (
    GitFailed,
    GitOpsError,
    HistoryRewritten,
    RefNotFound,
    TooLarge,
)
from orchestrator.gitops.git import Git
from orchestrator.gitops.source import GitSource

_TAKEN = "refs/bayplan/taken"
_FETCHED = "refs/bayplan/fetched"
_KEPT = "refs/bayplan/kept"
_FORMAT = "%H%x00%s%x00%an <%ae>%x00%ct%x00"
_SHORTENED = 500
_PACKS = 50
_REFERENCES = 100_000
_HEX = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A commit, and by which reference it was found.

    `ref` is the full name (`refs/heads/main`, `refs/tags/v1.2`, `HEAD`) or the commit itself,
    `object` what that named when it was fetched: the commit, or a tag of it.
    `committed_at` is in seconds since the epoch. `rewritten` is the commit that was taken before,
    where the history does not go on from it. Texts are the committer's own: printable, one line.
    """

    commit: str
    ref: str
    subject: str
    author: str
    committed_at: float
    object: str = ""
    rewritten: str | None = None

    def __str__(self) -> str:
        """`main@1a2b3c4d5e6f`."""
        name = self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return self.commit[:12] if name == self.commit else f"{name}@{self.commit[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """A file, link, submodule or directory of a commit; `size` is -1 where it has none."""

    path: str
    mode: int
    object: str
    size: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    ref: str
    commit: str
    object: str


class Mirror:
    """The bare repository `directory` of `source`. One fetch at a time; reading at any time."""

    def __init__(self, directory: Path, source: GitSource) -> None:
        self.directory = directory
        self.source = source
        self.git = Git(directory, source)
        self._lock = asyncio.Lock()

    async def probe(self) -> str | None:
        """The commit that the wanted reference has now, without fetching; None if there is none.

        Raises GitOpsError.
        """
        await self._ready()
        try:
            return (await self._find()).commit
        except RefNotFound:
            return None

    async def fetch(self, *, accept_rewrite: bool = False) -> Revision:
        """Bring the mirror up to date and say what the reference is.

        `accept_rewrite` takes a rewritten history this once, whatever the source says.
        Raises GitOpsError, and then what was taken before stays what it was.
        """
        async with self._lock:
            await self._ready()
            wanted = await self._find()
            await self._bring(wanted)
            commit = await self._commit_of(_FETCHED)
            named = (await self.git.run("rev-parse", "--verify", _FETCHED)).decode().strip()
            before = await self._taken(wanted.ref)
            rewritten = None
            if before and before != commit and await self._is_rewrite(wanted.ref, before, commit):
                rewritten = before
                if self.source.force_push == "refuse" and not accept_rewrite:
                    raise HistoryRewritten(wanted.ref, before, commit)
            await self._take(wanted.ref, commit)
            await self._tidy()
            found = await self.revision(commit, ref=wanted.ref)
            return replace(found, object=named, rewritten=rewritten)

    async def has(self, commit: str) -> bool:
        """Whether the mirror holds `commit`."""
        await self._ready()
        return commit in await self._present((commit,))

    async def _present(self, commits: Iterable[str]) -> set[str]:
        asked = "".join(f"{commit}^{{commit}}\n" for commit in commits if _HEX.fullmatch(commit))
        output = await self.git.run("cat-file", "--batch-check", given=asked.encode())
        lines = (line.split() for line in output.decode().splitlines())
        return {words[0] for words in lines if words[1:2] == ["commit"]}

    async def resolve(self, text: str) -> str:
        """The full commit for a shortened one or a fetched reference. Raises RefNotFound."""
        await self._ready()
        if text.startswith("-"):
            raise RefNotFound(f"{text!r} is no commit")
        try:
            words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
            return (await self.git.run(*words)).decode().strip()
        except GitFailed as exc:
            raise RefNotFound(f"{text!r} is no commit that was fetched") from exc

    async def revision(self, commit: str, *, ref: str | None = None) -> Revision:
        """What a fetched commit says of itself."""
        words = ("log", "-z", "-1", "--no-show-signature", f"--format={_FORMAT}", commit, "--")
        found = _parse_log(await self.git.run(*words), ref)
        if not found:
            raise RefNotFound(f"{commit} was not fetched")
        return found[0]

    async def log(self, since: str | None, until: str, *, limit: int = 100) -> list[Revision]:
        """The commits after `since` (None: from the first one) up to `until`, newest first."""
        await self._ready()
        if since is not None and not await self.has(since):
            since = None
        selection = f"{since}..{until}" if since else until
        words = ("log", "-z", f"-{limit}", "--no-show-signature", f"--format={_FORMAT}")
        return _parse_log(await self.git.run(*words, selection, "--"), None)

    async def keep(self, commits: Iterable[str]) -> None:
        """Hold on to these commits, whatever happens to branches, and to no others."""
        await self._ready()
        wanted = await self._present(commits)
        listed = await self.git.run("for-each-ref", "--format=%(refname)", _KEPT)
        held = {line.rsplit("/", 1)[1] for line in listed.decode().split()}
        commands = [f"update {_KEPT}/{commit} {commit}\n" for commit in sorted(wanted - held)]
        commands += [f"delete {_KEPT}/{commit}\n" for commit in sorted(held - wanted)]
        if commands:
            await self.git.run("update-ref", "--stdin", given="".join(commands).encode())

    async def tree(self, commit: str) -> list[TreeEntry]:
        """Every entry of a commit, directories before what is in them.

        Raises TooLarge: a tree may be far larger than the objects that it is made of.
        """
        limits = self.source.limits

        def read(to_git: IO[bytes], from_git: IO[bytes]) -> list[TreeEntry]:
            to_git.close()
            entries: list[TreeEntry] = []
            size, rest = 0, b""
            while piece := from_git.read(2**16):
                *lines, rest = (rest + piece).split(b"\0")
                found = [_parse_entry(line) for line in lines]
                entries += found
                size += sum(max(entry.size, 0) for entry in found)
                if len(entries) > limits.files:
                    message = f"{commit[:12]} has more than {limits.files:,} files"
                    raise TooLarge(message, hint="raise limits.files if this is meant")
                if size > limits.size:
                    message = f"the files of {commit[:12]} have more than {limits.size:,} bytes"
                    raise TooLarge(message, hint="raise limits.size if this is meant")
            if rest:
                raise GitFailed(f"git broke off in the list of files of {commit[:12]}")
            return entries

        # A list that ends early would be a commit from which everything else has gone.

        words = ("ls-tree", "-r", "-t", "-z", "--long", "--full-tree", commit)
        return await self.git.converse(words, read, whole=True)

    async def _ready(self) -> None:
        await self.git.prepare()

    async def _find(self) -> _Wanted:
        """The wanted reference as the server has it."""
        ref = self.source.ref
        if ref.commit:
            return _Wanted(ref.commit, ref.commit, ref.commit)
        if ref.branch:
            patterns = [f"refs/heads/{ref.branch}"]
        elif ref.tag:
            patterns = [f"refs/tags/{ref.tag}", f"refs/tags/{ref.tag}^{{}}"]
        else:
            patterns = ["refs/tags/*"] if ref.semver else ["HEAD"]
        listed = await self._listed(patterns)
        if ref.semver:
            tags = (name.removeprefix("refs/tags/") for name in listed if not name.endswith("^{}"))
            # A server may name any number of tags, and the daemon has other things to do.
            tag = await asyncio.to_thread(semver.newest, list(tags), ref.semver)
            if tag is None:
                raise RefNotFound(f"{self.source.url} has no tag in the range {ref.semver}")
            patterns = [f"refs/tags/{tag}"]
        name = patterns[0]
        if name not in listed:
            raise RefNotFound(f"{self.source.url} has no {ref}")
        return _Wanted(name, listed.get(f"{name}^{{}}", listed[name]), listed[name])

    async def _listed(self, patterns: list[str]) -> dict[str, str]:
        output = await self.git.run("ls-remote", "--quiet", "--", self.source.url, *patterns)
        listed = {}
        for line in output.decode("utf-8", "replace").splitlines():
            commit, _, name = line.partition("\t")
            if _HEX.fullmatch(commit):
                listed[name] = commit
                if len(listed) > _REFERENCES:
                    raise TooLarge(f"{self.source.url} has more than {_REFERENCES:,} tags")
        return listed

    async def _bring(self, wanted: _Wanted) -> None:
        if self.source.ref.commit and await self.has(wanted.commit):
            await self.git.run("update-ref", _FETCHED, wanted.commit)
            return
        try:
            await self._fetch_refs(f"+{wanted.ref}:{_FETCHED}")
        except RefNotFound:
            if not self.source.ref.commit:
                raise
            # Not every server gives a commit by its name.
            await self._fetch_refs("+refs/heads/*:refs/bayplan/all/*", "+refs/tags/*:refs/tags/*")
            if not await self.has(wanted.commit):
                raise
            await self.git.run("update-ref", _FETCHED, wanted.commit)
        self.git.check_size(self.source.limits.size)

    async def _fetch_refs(self, *refspecs: str) -> None:
        words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force")
        try:
            await self.git.run(*words, "--", self.source.url, *refspecs, grows=True)
        finally:
            self._sweep()

    def _sweep(self) -> None:
        """What an interrupted fetch has left, which nothing would ever use."""
        packs = self.directory / "objects/pack"
        for entry in packs.glob("tmp_*") if packs.is_dir() else ():
            entry.unlink(missing_ok=True)

    async def _commit_of(self, name: str) -> str:
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        try:
            return (await self.git.run(*words)).decode().strip()
        except GitFailed as exc:
            message = f"{self.source.ref} of {self.source.url} is not a commit"
            raise RefNotFound(message) from exc

    async def _taken(self, ref: str) -> str | None:
        """The commit that was taken last of this same reference."""
        note = self.directory / "taken"
        try:
            name, _, commit = note.read_text().strip().partition(" ")
        except FileNotFoundError:
            return None
        return commit if name == ref and await self.has(commit) else None

    async def _take(self, ref: str, commit: str) -> None:
        await self.git.run("update-ref", _TAKEN, commit)
        draft = self.directory / ".taken.new"
        draft.write_text(f"{ref} {commit}\n")
        os.replace(draft, self.directory / "taken")

    async def _is_rewrite(self, ref: str, before: str, now: str) -> bool:
        if ref.startswith("refs/tags/"):
            return True  # a tag stays where it is
        words = ("merge-base", "--is-ancestor", before, now)
        try:
            await self.git.run(*words)
        except GitFailed as exc:
            if exc.exit_code != 1:
                raise
            return True
        return False

    async def _tidy(self) -> None:
        """Many fetches make many packs, which slow every look-up."""
        packs = self.directory / "objects/pack"
        if packs.is_dir() and sum(1 for _ in packs.glob("*.pack")) > _PACKS:
            await self.git.run("gc", "--quiet", "--prune=1.day.ago", "--no-cruft")


def _parse_log(output: bytes, ref: str | None) -> list[Revision]:
    fields = output.decode("utf-8", "replace").split("\0")
    found = []
    # `-z` ends every commit with one more zero byte.
    for start in range(0, len(fields) - 4, 5):
        commit, subject, author, when = fields[start : start + 4]
        found.append(
            Revision(
                commit=commit.strip(),
                ref=ref or commit.strip(),
                subject=_line(subject),
                author=_line(author),
                committed_at=_moment(when),
            )
        )
    return found


def _moment(text: str) -> float:
    """Seconds since the epoch, 0 where a commit does not say when it was made: git takes those
    without a date, and those whose text is not in the encoding that they name."""
    return float(text) if text.isascii() and text.isdecimal() else 0.0


def _line(text: str) -> str:
    """A committer's text, fit to be printed."""
    return "".join(char if char.isprintable() else " " for char in text).strip()[:_SHORTENED]


def _parse_entry(line: bytes) -> TreeEntry:
    described, _, path = line.partition(b"\t")
    mode, _, name, size = described.split()
    try:
        text = path.decode("utf-8", "surrogateescape")
        return TreeEntry(
            path=text,
            mode=int(mode, 8),
            object=name.decode(),
            size=-1 if size == b"-" else int(size),
        )
    except ValueError as exc:
        raise GitOpsError(f"git lists {line!r}") from exc
