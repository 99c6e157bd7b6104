"""What the watched files were when last looked at, and what has changed since.

Changes are found by comparing, so it does not matter how it became known that there may be
some: from an event, after events were lost, or because it was time to look. A directory is
watched before it is read, so that nothing that is put into it meanwhile is missed. Symbolic
links are files here; they are never followed below a root.
"""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

_TICK = 20_000_000  # ns; file systems note times by the kernel's clock tick, 10 ms at most
_numbers = itertools.count(1)

Kind = Literal["file", "directory", "link"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is remembered of a file; `target` is where a link leads.

    `ctime_ns` changes with content, mode and name, so that two files that have changed places and
    back are noticed, too: what was copied in between was the other one.
    """

    kind: Kind
    mode: int
    size: int = 0
    ctime_ns: int = 0
    inode: int = 0
    target: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """Something at `path` is new or other than it was, or gone (`there` false)."""

    path: str
    kind: Kind
    there: bool


class Directories(Protocol):
    """Who is told which directories to watch. `holds` is false of one that was entered, and that
    has been moved or removed since, whatever bears its name now."""

    def enter(self, directory: str) -> None: ...

    def holds(self, directory: str) -> bool: ...

    def leave(self, directory: str) -> None: ...


class Forest:
    """The trees below some roots, which may lie in one another and need not exist.

    `warn` is told once of each directory that cannot be read; it is skipped.
    """

    def __init__(self, directories: Directories, warn: Callable[[str], None]) -> None:
        self._directories = directories
        self._warn = warn
        self._warned: set[str] = set()
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, set[str]] = {}
        self._roots: set[str] = set()
        self._above: dict[str, set[str]] = {}
        self._wanted: Callable[[str, bool], bool] = lambda path, directory: True

    def plant(self, roots: Iterable[str], wanted: Callable[[str, bool], bool]) -> list[Change]:
        """Follow these roots from now on, in place of the former ones.

        `wanted(path, is_directory)` says what below them counts; it must be true of a directory
        that may hold what counts. The changes are those below roots that were followed before;
        what is there already below the others is none.
        """
        former, self._roots = self._roots, set(roots)
        self._wanted = wanted
        for path in [path for path in self._entries if not self._followed(path)]:
            self._forget(path)
        self._settle()
        changes = self._compare_all()
        return [change for change in changes if _root_of(change.path, former) is not None]

    @property
    def roots(self) -> tuple[str, ...]:
        return tuple(sorted(self._roots))

    def below(self, root: str) -> Iterator[tuple[str, Entry]]:
        """What is known at and below `root`, parents first."""
        pending = [root]
        while pending:
            path = pending.pop()
            entry = self._entries.get(path)
            if entry is not None:
                yield path, entry
                names = sorted(self._names.get(path, ()), reverse=True)
                pending += [f"{path}/{name}" for name in names]

    def concerns(self, path: str) -> bool:
        """Whether something at `path` may be a change of ours."""
        if self._root_of(path) is not None:
            return self._followed(path)
        parent, name = os.path.split(path)
        return name in self._above.get(parent, ()) or path in self._above

    def _followed(self, path: str) -> bool:
        root = self._root_of(path)
        return root is not None and (path == root or self._wanted(path, True))

    def refresh(self, paths: Iterable[str]) -> list[Change]:
        """Look at these paths; the changes there and below, what is gone before what is new."""
        looked = {path: _look(path) for path in sorted(paths)}
        if any(self._root_of(path) is None for path in looked):
            # Something on the way to a root: roots come and go with it.
            self._settle()
            looked |= {root: _look(root) for root in self.roots}
        changes: list[Change] = []
        for path, entry in looked.items():
            if self._root_of(path) is not None:
                changes += self._drop_if_other(path, entry)
        for path, entry in looked.items():
            if entry is not None and self._root_of(path) is not None:
                changes += self._take(path, entry)
        return changes

    def rescan(self) -> list[Change]:
        """Look at everything."""
        self._settle()
        return self._compare_all()

    def _compare_all(self) -> list[Change]:
        gone: list[Change] = []
        new: list[Change] = []
        for root in self.roots:
            self._compare(root, gone, new)
        return gone + new

    def _compare(self, path: str, gone: list[Change], new: list[Change]) -> None:
        pending = [path]
        while pending:
            path = pending.pop()
            entry = _look(path)
            gone += self._drop_if_other(path, entry)
            if entry is None:
                continue
            if entry.kind != "directory" or path not in self._entries:
                new += self._take(path, entry)
                continue
            new += self._take(path, entry)
            there = self._list(path)
            pending += [f"{path}/{name}" for name in {*there, *self._names.get(path, ())}]

    def _settle(self) -> None:
        """Watch the way to each root: its parent, or as much of the way as there is."""
        above: dict[str, set[str]] = {}
        for root in self._roots:
            parent, name = os.path.split(root)
            while name and not os.path.isdir(parent):
                parent, name = os.path.split(parent)
            above.setdefault(parent, set()).add(name)
        for directory in self._above:
            if directory not in above and directory not in self._entries:
                self._directories.leave(directory)
        self._above = above
        for directory in above:
            self._enter(directory)

    def _root_of(self, path: str) -> str | None:
        return _root_of(path, self._roots)

    def _drop_if_other(self, path: str, entry: Entry | None) -> list[Change]:
        known = self._entries.get(path)
        if known is None:
            return []
        if entry is not None and self._is_same(path, known, entry):
            return []
        changes = [Change(path, known.kind, there=False)]
        if path in self._roots and known.kind == "directory":
            # What a root is copied to is more than the root: only what came from it goes.
            changes = [
                Change(f"{path}/{name}", self._entries[f"{path}/{name}"].kind, there=False)
                for name in sorted(self._names.get(path, ()))
            ]
        self._forget(path)
        return changes

    def _is_same(self, path: str, known: Entry, entry: Entry) -> bool:
        """Whether it is of one kind with what is known; a directory must be the one that was
        entered. Its inode may be another's by now, or it may have been elsewhere meanwhile: then
        nothing of what happened in it was heard."""
        if entry.kind != known.kind or entry.kind != "directory":
            return entry.kind == known.kind
        held = self._directories.holds(path) or path in self._warned
        return held and entry.inode == known.inode

    def _forget(self, path: str) -> None:
        parent, name = os.path.split(path)
        if path in self._entries:
            self._names.get(parent, set()).discard(name)
        pending = [path]
        while pending:
            path = pending.pop()
            entry = self._entries.pop(path, None)
            if entry is None or entry.kind != "directory":
                continue
            pending += [f"{path}/{name}" for name in self._names.pop(path, ())]
            if path not in self._above:
                self._directories.leave(path)

    def _take(self, path: str, entry: Entry) -> list[Change]:
        """Note what is there; a directory that is new is entered with all that is below it."""
        changes: list[Change] = []
        pending = [(path, entry)]
        while pending:
            path, entry = pending.pop()
            directory = entry.kind == "directory"
            if path not in self._roots and not self._wanted(path, directory):
                continue
            changes += self._drop_if_other(path, entry)
            known = self._entries.get(path)
            if known == entry:
                continue
            self._entries[path] = entry
            parent, name = os.path.split(path)
            self._names.setdefault(parent, set()).add(name)
            changes.append(Change(path, entry.kind, there=True))
            if directory and known is None:
                self._enter(path)
                for name in self._list(path):
                    child = _look(f"{path}/{name}")
                    if child is not None:
                        pending.append((f"{path}/{name}", child))
        return changes

    def _enter(self, directory: str) -> None:
        try:
            self._directories.enter(directory)
        except (FileNotFoundError, NotADirectoryError):
            return  # its end is an event of its parent's
        except OSError as exc:
            self._skip(directory, exc)

    def _list(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            self._directories.leave(directory)
            return []
        except OSError as exc:
            self._skip(directory, exc)
            return []

    def _skip(self, directory: str, error: OSError) -> None:
        if directory not in self._warned:
            self._warned.add(directory)
            self._warn(f"{directory} is not watched: {(error.strerror or str(error)).lower()}")


def _root_of(path: str, roots: set[str]) -> str | None:
    """The nearest root at or above `path`."""
    while path not in roots:
        parent = os.path.dirname(path)
        if parent == path:
            return None
        path = parent
    return path


def _look(path: str) -> Entry | None:
    """What is at `path`; sockets, pipes and devices count as nothing."""
    try:
        status = os.lstat(path)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISREG(status.st_mode):
            ctime = status.st_ctime_ns
            if abs(time.time_ns() - ctime) < _TICK:
                # It may be written again without another time to show: it is like nothing else.
                ctime = -next(_numbers)
            return Entry("file", mode, status.st_size, ctime, status.st_ino)
        if stat.S_ISDIR(status.st_mode):
            return Entry("directory", mode, inode=status.st_ino)
        if stat.S_ISLNK(status.st_mode):
            return Entry("link", 0, inode=status.st_ino, target=os.readlink(path))
    except OSError:
        # Gone meanwhile, or below what may not be read: its directory tells of that.
        return None
    return None
