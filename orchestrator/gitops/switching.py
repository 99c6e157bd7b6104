"""Takes the stable tree of a source from one commit to another; `checkout` says why in this way.

The tree may have been changed by containers in every way, links included, so each directory is
opened by its name in the one above, without following links, and what is found decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.gitops.checkout import (
    DIRECTORY,
    LINK,
    SUBMODULE,
    Checkout,
    Entry,
    file_mode,
    is_blob,
    write_atomically,
)
from orchestrator.gitops.found_files import holds_blob, same_content

_NOTE = "tree.json"
_STAGE = ".stage"
# The kernel's own clock for files ticks every few milliseconds.
_TOO_YOUNG = 100_000_000


@dataclass(slots=True, kw_only=True)
class Switched:
    """What a switch did: paths of the repository. `kept` are files that were not the commit's and
    stood in the way, by the name that they have now."""

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.written or self.removed)


async def switch(checkout: Checkout) -> Switched:
    """Make the stable tree what `checkout` is; also puts right what somebody changed in it.

    Raises OSError, after which the tree is between the two: the next switch takes it on.
    """
    return await asyncio.to_thread(_switch, checkout)


async def clear(root: Path) -> bool:
    """Remove what commits have put into the stable tree; whether containers' own files are left.

    Raises OSError.
    """
    return await asyncio.to_thread(_clear, root)


def _clear(root: Path) -> bool:
    stable = root / "tree"
    if not stable.is_dir():
        return False
    nothing = Checkout(
        commit="", path=root / "commits", stable=stable, entries={}, lfs=(), submodules=()
    )
    _switch(nothing)
    try:
        stable.rmdir()
    except OSError as exc:
        if exc.errno not in _NOT_OURS:
            raise
        return True
    (root / _NOTE).unlink(missing_ok=True)
    return False


def current(root: Path) -> str | None:
    """The commit that the stable tree was switched to, or was being switched to, last."""
    try:
        return str(json.loads((root / _NOTE).read_bytes())["commit"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """A path that a switch has put into the tree, and how to tell that nobody has changed it:
    the inode and its time of change, which nobody can set; None where that is too young to tell
    a change that followed at once. One that is `pending` was about to be placed by a switch that
    was cut off: what is there may be somebody else's."""

    entry: Entry
    mark: tuple[int, int] | None
    pending: bool = False


def _switch(checkout: Checkout) -> Switched:
    root = checkout.stable.parent
    owned = _owned(root)
    stage = root / _STAGE
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(mode=0o700)
    checkout.stable.mkdir(mode=0o755, exist_ok=True)
    done = Switched()
    tree = os.open(checkout.stable, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        switcher = _Switcher(checkout, owned, stage, tree, done)
        switcher.stage_files()
        # Until the switch is done, the old paths are ours, and the new ones where they are placed.
        fresh = {
            path: _Placed(entry=entry, mark=None, pending=path not in owned)
            for path, entry in checkout.entries.items()
        }
        kept = {path: one for path, one in owned.items() if one.pending or path not in fresh}
        _note(root, checkout, {**fresh, **kept})
        switcher.place()
        switcher.remove()
    finally:
        os.close(tree)
        shutil.rmtree(stage, ignore_errors=True)
    _note(
        root,
        checkout,
        {
            path: _Placed(entry=entry, mark=switcher.marks.get(path))
            for path, entry in checkout.entries.items()
        },
    )
    return done


def _owned(root: Path) -> dict[str, _Placed]:
    try:
        paths = json.loads((root / _NOTE).read_bytes())["paths"]
        return {
            path: _Placed(
                entry=Entry(mode=mode, object=name),
                mark=(mark[0], mark[1]) if mark else None,
                pending=pending,
            )
            for path, (mode, name, mark, pending) in paths.items()
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _note(root: Path, checkout: Checkout, placed: Mapping[str, _Placed]) -> None:
    paths = {
        path: [one.entry.mode, one.entry.object, one.mark, one.pending]
        for path, one in placed.items()
    }
    document = {"commit": checkout.commit, "paths": paths}
    write_atomically(root / _NOTE, json.dumps(document).encode())


class _Switcher:
    """One switch. `owned` are the paths that earlier commits put into the tree."""

    def __init__(
        self,
        checkout: Checkout,
        owned: Mapping[str, _Placed],
        stage: Path,
        tree: int,
        done: Switched,
    ) -> None:
        self.checkout = checkout
        self.owned = owned
        self.stage = stage
        self.tree = tree
        self.done = done
        self.staged: dict[str, str] = {}
        self.marks: dict[str, tuple[int, int]] = {}

    def stage_files(self) -> None:
        """Copy whatever the tree does not have as the commit has it."""
        for path, entry in self.checkout.entries.items():
            if entry.mode in (DIRECTORY, SUBMODULE) or self._same(path, entry):
                continue
            name = str(len(self.staged))
            source, target = self.checkout.path / path, self.stage / name
            if entry.mode == LINK:
                os.symlink(os.readlink(source), target)
            else:
                shutil.copyfile(source, target)
                os.chmod(target, file_mode(entry.mode))
            self.staged[path] = name

    def _same(self, path: str, entry: Entry) -> bool:
        parent, _, name = path.rpartition("/")
        now = time.time_ns()
        with self._directory(parent) as directory:
            if directory is None:
                return False
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                return False
            mark = (found.st_ino, found.st_ctime_ns)
            known = self.owned.get(path)
            trusted = known is not None and known.entry == entry and known.mark == mark
            if not trusted and not self._equal(directory, name, found, path, entry):
                return False
        # Taken before the comparison, so that what changes the file meanwhile is not overlooked.
        if found.st_ctime_ns < now - _TOO_YOUNG:
            self.marks[path] = mark
        return True

    def _equal(
        self, directory: int, name: str, found: os.stat_result, path: str, entry: Entry
    ) -> bool:
        source = self.checkout.path / path
        if entry.mode == LINK:
            is_link = stat.S_ISLNK(found.st_mode)
            return is_link and os.readlink(name, dir_fd=directory) == os.readlink(source)
        wanted = os.stat(source)
        if not stat.S_ISREG(found.st_mode) or found.st_size != wanted.st_size:
            return False
        if stat.S_IMODE(found.st_mode) != stat.S_IMODE(wanted.st_mode):
            return False
        return same_content(directory, name, source)

    @contextlib.contextmanager
    def _directory(self, path: str) -> Iterator[int | None]:
        """The directory of the tree at `path`; None where there is none, or a link."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        current = os.dup(self.tree)
        try:
            for name in path.split("/") if path else ():
                try:
                    below = os.open(name, flags, dir_fd=current)
                except (FileNotFoundError, NotADirectoryError, OSError) as exc:
                    if exc.errno not in _NOT_THERE:
                        raise
                    yield None
                    return
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)

    def place(self) -> None:
        """Put directories and files where they belong, what is new first."""
        fresh: list[str] = []
        changed: list[str] = []
        for path in self.staged:
            (changed if path in self.owned else fresh).append(path)
        for path, entry in self.checkout.entries.items():
            if entry.mode in (DIRECTORY, SUBMODULE):
                self._make_directory(path)
        for path in (*fresh, *changed):
            self._place_file(path)

    def _make_directory(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        with self._directory(parent) as directory:
            if directory is None:
                raise _changed_meanwhile(parent)
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    return
                self._clear(directory, name, path)
            os.mkdir(name, 0o755, dir_fd=directory)

    def _place_file(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        with self._directory(parent) as directory:
            if directory is None:
                raise _changed_meanwhile(parent)
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode) or not self._is_ours(directory, name, path):
                    self._clear(directory, name, path)
            os.rename(self.stage / self.staged[path], name, dst_dir_fd=directory)
        self.done.written.append(path)

    def _clear(self, directory: int, name: str, path: str) -> None:
        """Take what stands in the way out of it; what is not ours stays, beside."""
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            if self._remove_owned_below(path):
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=directory)
                    return
        elif self._is_ours(directory, name, path):
            os.unlink(name, dir_fd=directory)
            return
        number = 0
        while True:
            aside = f"{name}.kept-{self.checkout.commit[:12]}" + (f".{number}" if number else "")
            try:
                os.stat(aside, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                break
            number += 1
        os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
        self.done.kept.append(path.removesuffix(name) + aside)

    def _is_ours(self, directory: int, name: str, path: str) -> bool:
        """Whether the file or link there was put there by a switch."""
        placed = self.owned.get(path)
        if placed is None or not placed.pending:
            return placed is not None
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            content = os.fsencode(os.readlink(name, dir_fd=directory))
        else:
            return holds_blob(directory, name, placed.entry.object)
        return is_blob(content, placed.entry.object)

    def _remove_owned_below(self, path: str) -> bool:
        """Remove the files of earlier commits below a directory; whether it was one of theirs."""
        prefix = f"{path}/"
        self._remove([old for old in self.owned if old.startswith(prefix)])
        return path in self.owned

    def remove(self) -> None:
        """Remove what earlier commits had and this one has not."""
        self._remove([path for path in self.owned if path not in self.checkout.entries])

    def _remove(self, paths: list[str]) -> None:
        # Deepest first, so that a directory is empty when its turn comes.
        for path in sorted(paths, key=lambda path: path.count("/"), reverse=True):
            parent, _, name = path.rpartition("/")
            with self._directory(parent) as directory:
                if directory is None:
                    continue
                try:
                    if self.owned[path].entry.mode in (DIRECTORY, SUBMODULE):
                        os.rmdir(name, dir_fd=directory)
                    elif self._is_ours(directory, name, path):
                        os.unlink(name, dir_fd=directory)
                        self.done.removed.append(path)
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError, OSError) as exc:
                    # Containers' own files keep their directory.
                    if exc.errno not in _NOT_OURS:
                        raise


_NOT_THERE = (2, 20, 40)  # ENOENT, ENOTDIR, ELOOP
_NOT_OURS = (2, 16, 20, 21, 39)  # ENOENT, EBUSY, ENOTDIR, EISDIR, ENOTEMPTY


def _changed_meanwhile(directory: str) -> NotADirectoryError:
    return NotADirectoryError(20, "something changed the directory meanwhile", directory)
