"""What COPY and ADD may take: the build context, another stage, an image.

Paths are looked up by descriptor inside the tree's own root, so that neither `..` nor a
symbolic link leads out of a context. A digest of a selection covers names, modes, owners,
links, attributes and content, but no times.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from runtime.build.ignore import IgnoreRules, glob_regex
from runtime.images.merged import Found, MergedTree, Parts, check_depth, split

_CHUNK = 1024 * 1024
_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to copy: where it is in the tree, and its path below what was selected."""

    parts: Parts
    relative: Parts
    status: os.stat_result


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What a source word selected: a real path in the tree, and the name it was asked by.

    `prefix` are the parent directories that come along (`COPY --parents`).
    """

    parts: Parts
    name: bytes
    is_directory: bool
    prefix: Parts = ()


class SourceTree:
    """A tree to copy from; `keep_owner` false makes everything root's, as a context is.

    Not for several threads at once. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        layers: Sequence[str | os.PathLike[str]],
        *,
        keep_owner: bool,
        rules: IgnoreRules | None = None,
        identity: str = "",
    ) -> None:
        self.tree = MergedTree(layers)
        self.keep_owner = keep_owner
        self.rules = rules or IgnoreRules()
        self.identity = identity
        """What the tree is, where that is known without reading it: a chain ID."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.tree.close()

    def select(self, word: str) -> tuple[Selected, ...]:
        """What a source word, maybe with wildcards, selects; () for nothing.

        `..` stops at the root. Raises ValueError for a damaged pattern, OSError (ELOOP).
        """
        clean = _clean(word)
        if any(_WILD & set(part) for part in clean):
            paths = list(self._matching((), clean))
        else:
            paths = [tuple(os.fsencode(_unescaped(part)) for part in clean)]
        selected = []
        for path in paths:
            real = self.tree.resolve(path)
            found = self.tree.entry(real)
            if found is None or not self._visible(real, found):
                continue
            name = path[-1] if path else b""
            selected.append(Selected(parts=real, name=name, is_directory=found.is_directory))
        return tuple(selected)

    def select_with_parents(self, word: str) -> tuple[Selected, ...]:
        """As `select`, for `COPY --parents`: `**` matches any depth, and the directories on
        the way, from `/./` on where the word has it, belong to the selection."""
        pivot, _, rest = word.rpartition("/./")
        base = self.tree.resolve(tuple(os.fsencode(_unescaped(part)) for part in _clean(pivot)))
        clean = _clean(rest)
        if "**" in clean:
            regex = glob_regex("/".join(clean))
            below = (item.parts[len(base) :] for item in self.items(base))
            found_paths = [path for path in below if path and regex.match(_text(path))]
        else:
            found_paths = [path[len(base) :] for path in self._matching(base, clean)]
        selected = []
        for path in found_paths:
            found = self.tree.entry((*base, *path))
            if found is not None and self._visible((*base, *path), found):
                selected.append(
                    Selected(
                        parts=(*base, *path),
                        name=path[-1] if path else b"",
                        is_directory=found.is_directory,
                        prefix=path,
                    )
                )
        return tuple(selected)

    def nearest(self, word: str) -> str | None:
        """A path that is much like `word`, which is not there."""
        *above, last = _clean(word) or [""]
        parts = tuple(map(os.fsencode, above))
        try:
            names = [os.fsdecode(name) for name in self.tree.names(self.tree.resolve(parts))]
        except OSError:
            return None
        close = difflib.get_close_matches(last, names, n=1)
        path = "/".join((*above, *close))
        return path if close and not (self.rules and self.rules.ignores(path)) else None

    def is_ignored(self, word: str) -> bool:
        """True where a plain path exists but the ignore rules hide it."""
        parts = tuple(part for part in split(os.fsencode(word)) if part != b"..")
        found = self.tree.entry(self.tree.resolve(parts))
        return found is not None and not self._visible(parts, found)

    def items(self, root: Parts, *, prefix: Parts = ()) -> Iterator[Item]:
        """`root` and all that is visible below it, parents first, by name.

        `prefix`, the end of `root`, gives the parents that come before it.
        """
        above = len(root) - len(prefix)
        for depth in range(above + 1, len(root)):
            parent = self.tree.entry(root[:depth])
            if parent is not None:
                yield Item(parts=root[:depth], relative=root[above:depth], status=parent.status)
        found = self.tree.entry(root)
        if found is not None:
            yield from self._items(root, prefix, found, [])

    def digest(self, items: Sequence[Item]) -> str:
        """The sha256 (hexadecimal) of what the items are."""
        running = hashlib.sha256()
        for item in items:
            for field in self._describe(item):
                running.update(b"%d:" % len(field))
                running.update(field)
        return running.hexdigest()

    def owner(self, status: os.stat_result) -> tuple[int, int]:
        return (status.st_uid, status.st_gid) if self.keep_owner else (0, 0)

    def _items(
        self, parts: Parts, relative: Parts, found: Found, held: list[Item]
    ) -> Iterator[Item]:
        """`held` are parents that are themselves ignored: they come with their first child."""
        check_depth(parts)
        item = Item(parts=parts, relative=relative, status=found.status)
        if parts and self.rules and self.rules.ignores(_text(parts)):
            if not found.is_directory or not self.rules.may_hold_kept(_text(parts)):
                return
            held.append(item)
        else:
            yield from held
            held.clear()
            yield item
        if found.is_directory:
            for name in self.tree.names(parts):
                child = self.tree.entry((*parts, name))
                if child is not None:
                    yield from self._items((*parts, name), (*relative, name), child, held)
            if held and held[-1] is item:
                held.pop()

    def _visible(self, parts: Parts, found: Found) -> bool:
        if not parts or not self.rules or not self.rules.ignores(_text(parts)):
            return True
        return found.is_directory and any(True for _ in self._items(parts, (), found, []))

    def _matching(self, parts: Parts, pattern: Sequence[str]) -> Iterator[Parts]:
        if not pattern:
            yield parts
            return
        first, *rest = pattern
        if not _WILD & set(first):
            yield from self._matching((*parts, os.fsencode(_unescaped(first))), rest)
            return
        regex = glob_regex(first, deep=False)
        for name in self.tree.names(self.tree.resolve(parts)):
            if regex.match(os.fsdecode(name)):
                yield from self._matching((*parts, name), rest)

    def _describe(self, item: Item) -> Iterator[bytes]:
        status = item.status
        uid, gid = self.owner(status)
        yield b"/".join(item.relative)
        yield b"%o %d %d" % (status.st_mode, uid, gid)
        found = self.tree.entry(item.parts)
        if found is None:
            raise FileNotFoundError(f"{_text(item.parts)} vanished while it was read")
        if stat.S_ISLNK(status.st_mode):
            yield found.readlink()
        elif stat.S_ISREG(status.st_mode):
            fd = found.open()
            try:
                yield file_digest(fd, status)
                for name in sorted(os.listxattr(fd)):
                    if name.startswith(("user.", "security.capability")):
                        yield os.fsencode(name) + b"=" + os.getxattr(fd, name)
            finally:
                os.close(fd)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            yield b"%d" % status.st_rdev


_digests: dict[tuple[int, int, int, int, int], bytes] = {}
_digests_mutex = threading.Lock()
_MOST_DIGESTS = 200_000


def file_digest(fd: int, status: os.stat_result) -> bytes:
    """The sha256 of an open file; remembered while the file's inode and times are the same."""
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    with _digests_mutex:
        known = _digests.get(key)
    if known is not None:
        return known
    running = hashlib.sha256()
    offset = 0
    # A large buffer for a small file costs more than the file.
    chunk = min(_CHUNK, status.st_size + 1)
    while piece := os.pread(fd, chunk, offset):
        running.update(piece)
        offset += len(piece)
    digest = running.digest()
    with _digests_mutex:
        if len(_digests) >= _MOST_DIGESTS:
            _digests.clear()
        _digests[key] = digest
    return digest


def _clean(word: str) -> list[str]:
    """The components of a source word; `..` stops at the root."""
    clean: list[str] = []
    for part in word.split("/"):
        if part == "..":
            del clean[-1:]
        elif part not in ("", "."):
            clean.append(part)
    return clean


def _unescaped(text: str) -> str:
    out = []
    chars = iter(text)
    for char in chars:
        out.append(next(chars, "") if char == "\\" else char)
    return "".join(out)


def _text(parts: Parts) -> str:
    return os.fsdecode(b"/".join(parts))
