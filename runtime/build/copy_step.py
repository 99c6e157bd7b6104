"""COPY and ADD: what is selected, where it goes, and the layer that comes of it."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.build.archives import extract, is_archive
from runtime.build.chmod import parse_chmod
from runtime.build.copying import (
    Copier,
    CopyRefused,
    Destination,
    Owner,
    parse_owner,
)
from runtime.build.downloads import Download, fetch, is_remote
from runtime.build.git import GitSource, check_out, find_commit, is_git
from runtime.build.ground import Ground, LayerPlan
from runtime.build.ignore import IgnoreRules
from runtime.build.instructions import Copy
from runtime.build.sources import Item, Selected, SourceTree
from runtime.images.merged import MergedTree, split


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selection:
    selected: Selected
    items: tuple[Item, ...]
    archive: bool


def plan_copy(instruction: Copy, ground: Ground) -> LayerPlan:
    """The layer that COPY or ADD makes; raises BuildError, CopyRefused and ValueError."""
    return _CopyPlan(instruction, ground).plan()


class _CopyPlan:
    def __init__(self, instruction: Copy, ground: Ground) -> None:
        self._instruction = instruction
        self._ground = ground
        self._around = ground.around
        self._word = "ADD" if instruction.add else "COPY"
        self._exclude = tuple(map(ground.scope.expand, instruction.exclude))
        self._chmod = ground.expanded(instruction.chmod)
        self._mode = None if self._chmod is None else parse_chmod(self._chmod)
        self._owner = self._parse_owner()

    def plan(self) -> LayerPlan:
        instruction, ground = self._instruction, self._ground
        sources = [ground.scope.expand(word) for word in instruction.sources]
        written = ground.scope.expand(instruction.destination)
        directory = written.endswith("/") or posixpath.basename(written) in (".", "..")
        if len(sources) + len(instruction.inline) > 1 and not directory:
            raise ground.error(
                "with more than one source the destination must be a directory and end with /"
            )
        remote = [word for word in sources if self._is_remote(word)]
        repositories = [self._commit(word) for word in remote if is_git(word)]
        downloads = [self._fetch(word) for word in remote if not is_git(word)]
        self._check_flags(len(remote), len(sources), bool(repositories))
        local = [word for word in sources if not self._is_remote(word)]
        documents = [
            (
                document.name,
                ground.scope.document(document.content) if document.expand else document.content,
            )
            for document in instruction.inline
        ]
        with self._open() as source:
            selections = [one for word in local for one in self._select(source, word)]
            content = [self._describe(source, one) for one in selections]
        # Wildcards that match several things: the destination is a directory all the same.
        directory = directory or len(selections) > 1 or instruction.parents
        destination = Destination(path=ground.absolute(written), directory=directory)
        fields = {
            "do": "add" if any(one.archive for one in selections) else "copy",
            "destination": [destination.path, destination.directory],
            "owner": self._owner and [self._owner.uid, self._owner.gid],
            "mode": self._chmod,
            "content": content,
            "documents": documents,
            "downloads": [
                [one.name, one.digest, one.mtime, *(("unpack",) if instruction.unpack else ())]
                for one in downloads
            ],
            "repositories": [
                [one.commit, one.subdirectory, instruction.keep_git_dir] for one in repositories
            ],
        }

        def make(upper: Path) -> None:
            self._write(upper, selections, documents, downloads, destination)
            for repository in repositories:
                self._write_repository(upper, repository, destination)

        return LayerPlan(fields=fields, make=make, by=instruction.original, alone=instruction.link)

    def _write(
        self,
        upper: Path,
        selections: Sequence[_Selection],
        documents: Sequence[tuple[str, str]],
        downloads: Sequence[Download],
        destination: Destination,
    ) -> None:
        epoch = self._around.epoch
        now = time.time_ns() if epoch is None else epoch * 10**9
        instruction = self._instruction
        place = split(os.fsencode(destination.path))
        with (
            self._lower() as lower,
            self._ground.upper(upper, lower) as tree,
            self._open() as source,
        ):
            copier = Copier(tree, source, owner=self._owner, mode=self._mode)
            try:
                for one in selections:
                    if one.archive:
                        with _opened(source, one.items[0]) as archive:
                            extract(archive, tree, place, self._owner)
                    else:
                        copier.copy(one.selected, one.items, destination)
                for name, content in documents:
                    copier.write(name, content.encode(), now, destination)
                for download in downloads:
                    if instruction.unpack:
                        with open(download.path, "rb", buffering=0) as archive:
                            if is_archive(archive):
                                extract(archive, tree, place, self._owner)
                                continue
                    copier.place(download.path, download.name, download.mtime, destination)
            except OSError as exc:
                where = f" {exc.filename}" if exc.filename else ""
                reason = (exc.strerror or str(exc)).lower()
                raise self._ground.error(f"cannot copy{where}: {reason}") from exc
            tree.restore_times()

    def _write_repository(
        self, upper: Path, repository: GitSource, destination: Destination
    ) -> None:
        around = self._around
        checkout = around.lease.path("git")
        check_out(repository, checkout, around.ssh, keep=self._instruction.keep_git_dir)
        with (
            self._lower() as lower,
            self._ground.upper(upper, lower) as tree,
            SourceTree((checkout,), keep_owner=False) as source,
        ):
            copier = Copier(tree, source, owner=self._owner, mode=self._mode)
            for one in self._select(source, repository.subdirectory or "/"):
                copier.copy(one.selected, one.items, destination)
            tree.restore_times()

    def _commit(self, word: str) -> GitSource:
        found = find_commit(word, self._around.ssh)
        checksum = self._ground.expanded(self._instruction.checksum)
        if checksum is not None and not found.commit.startswith(checksum):
            raise self._ground.error(f"{word} is the commit {found.commit}, not {checksum}")
        return found

    def _select(self, source: SourceTree, word: str) -> Iterator[_Selection]:
        if self._instruction.parents:
            chosen = source.select_with_parents(word)
        else:
            chosen = source.select(word)
        if not chosen:
            hint = None
            if self._instruction.from_ is None and source.is_ignored(word):
                hint = "the file exists, but .dockerignore leaves it out"
            elif (near := source.nearest(word)) is not None:
                hint = f"did you mean {near}?"
            where = self._instruction.from_ or "the build context"
            raise self._ground.error(f"{word!r} is not in {where}", hint=hint)
        rules = IgnoreRules(self._exclude)
        for selected in chosen:
            items = tuple(source.items(selected.parts, prefix=selected.prefix))
            if rules:
                items = tuple(_without(items, rules, selected))
            if items:
                archive = self._is_archive(source, selected, items)
                yield _Selection(selected=selected, items=items, archive=archive)

    def _is_archive(self, source: SourceTree, selected: Selected, items: tuple[Item, ...]) -> bool:
        if not self._instruction.add or self._instruction.unpack is False:
            return False
        if selected.is_directory or not stat.S_ISREG(items[0].status.st_mode):
            return False
        with _opened(source, items[0]) as file:
            return is_archive(file)

    def _describe(self, source: SourceTree, one: _Selection) -> list[object]:
        kind = "archive" if one.archive else "directory" if one.selected.is_directory else "file"
        return [os.fsdecode(one.selected.name), kind, source.digest(one.items)]

    def _is_remote(self, word: str) -> bool:
        return self._instruction.add and is_remote(word)

    def _fetch(self, url: str) -> Download:
        checksum = self._ground.expanded(self._instruction.checksum)
        target = self._around.lease.path("download")
        return fetch(url, target, checksum=checksum, stop=lambda: self._around.wait(0))

    def _check_flags(self, remote: int, sources: int, git: bool) -> None:
        if self._instruction.checksum is not None and (remote != 1 or sources != 1):
            raise self._ground.error("--checksum needs exactly one source, and a remote one")
        if self._instruction.keep_git_dir and not git:
            raise self._ground.error("--keep-git-dir needs a git repository as source")

    def _parse_owner(self) -> Owner | None:
        text = self._ground.expanded(self._instruction.chown)
        if text is None:
            return None
        with self._ground.merged() as tree:
            try:
                return parse_owner(text, tree.read(b"/etc/passwd"), tree.read(b"/etc/group"))
            except OSError as exc:
                reason = (exc.strerror or "").lower()
                raise self._ground.error(
                    f"--chown={text}: cannot read {exc.filename}: {reason}"
                ) from exc

    def _lower(self) -> MergedTree:
        """What the layer stands on: nothing with --link, so that it fits on everything."""
        return MergedTree(()) if self._instruction.link else self._ground.merged()

    def _open(self) -> contextlib.AbstractContextManager[SourceTree]:
        return self._around.open_source(self._instruction.from_, self._instruction.line)


def _opened(source: SourceTree, item: Item) -> io.FileIO:
    found = source.tree.entry(item.parts)
    if found is None:
        raise CopyRefused("a file vanished while it was read")
    return io.FileIO(found.open(), "rb")


def _without(items: tuple[Item, ...], rules: IgnoreRules, selected: Selected) -> Iterator[Item]:
    """The items that no --exclude pattern matches; patterns see paths below the source."""
    for item in items:
        parts = item.relative if selected.is_directory else (selected.name,)
        path = os.fsdecode(b"/".join(parts))
        if not path or not rules.ignores(path):
            yield item
