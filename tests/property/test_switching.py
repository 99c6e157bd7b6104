"""Stable trees of sources: random commits, containers that write, and switches that are cut off."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.gitops.checkout import DIRECTORY, LINK, Checkout, Entry
from orchestrator.gitops.switching import switch

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS = st.tuples(st.sampled_from(["file", "program", "link"]), st.sampled_from(["1", "2"]))
COMMITS = st.dictionaries(PATHS, CONTENTS, max_size=6).map(lambda files: _without_overlaps(files))
# What a container does at a path: writes a file of its own, removes, or turns it into a link.
DEEDS = st.lists(st.tuples(st.sampled_from(["write", "remove", "link"]), PATHS), max_size=4)
STEPS = st.lists(
    st.tuples(COMMITS, DEEDS, st.none() | st.integers(min_value=0, max_value=12)),
    min_size=1,
    max_size=5,
)

Files = Mapping[str, tuple[str, str]]


def _without_overlaps(files: Files) -> Files:
    """No path may lie below another one's file."""
    return {
        path: content
        for path, content in files.items()
        if not any(path.startswith(f"{other}/") for other in files)
    }


def blob(content: str) -> str:
    data = content.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def write_checkout(root: Path, number: int, files: Files) -> Checkout:
    """An immutable checkout with these files, as a commit of that number."""
    place = root / "commits" / f"{number:040d}"
    place.mkdir(parents=True)
    entries: dict[str, Entry] = {}
    for path, (kind, content) in sorted(files.items()):
        for parent in reversed(Path(path).parents[:-1]):
            entries.setdefault(str(parent), Entry(mode=DIRECTORY, object=""))
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        if kind == "link":
            (place / path).symlink_to(content)
            mode = LINK
        else:
            (place / path).write_text(content)
            (place / path).chmod(0o755 if kind == "program" else 0o644)
            mode = 0o100755 if kind == "program" else 0o100644
        entries[path] = Entry(mode=mode, object=blob(content))
    return Checkout(
        commit=place.name,
        path=place,
        stable=root / "tree",
        entries=entries,
        lfs=(),
        submodules=(),
    )


def look(directory: Path) -> dict[str, Any]:
    """Every file and link below a directory, with its mode and content."""
    found: dict[str, Any] = {}
    for place in directory.rglob("*"):
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            found[str(place.relative_to(directory))] = ("link", os.readlink(place))
        elif stat.S_ISREG(mode):
            found[str(place.relative_to(directory))] = (mode & 0o777, place.read_text())
    return found


class Cut(BaseException):
    """The daemon was killed here."""


def switch_cut_off(checkout: Checkout, after: int) -> None:
    """A switch of which only so many changes of the file system happen."""
    left = after

    def counting(real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if not left:
                raise Cut
            left -= 1
            return real(*arguments, **named)

        return call

    names = ("rename", "unlink", "mkdir", "rmdir", "replace")
    with mock.patch.multiple(os, **{name: counting(getattr(os, name)) for name in names}):
        try:
            asyncio.run(switch(checkout))
        except Cut:
            return


class Container:
    """Writes into the tree without a thought; remembers what is its own."""

    def __init__(self, tree: Path, outside: Path) -> None:
        self.tree = tree
        self.outside = outside
        self.own: list[str] = []

    def act(self, deed: str, path: str, tracked: Files) -> None:
        place = self.tree / path
        if any(parent.is_symlink() or parent.is_file() for parent in self._parents(place)):
            return
        ours = path in tracked or any(name.startswith(f"{path}/") for name in tracked)
        if deed == "write":
            if place.is_dir() or place.is_symlink() or ours or place.exists():
                return
            place.parent.mkdir(parents=True, exist_ok=True)
            text = f"own {len(self.own)}"
            place.write_text(text)
            self.own.append(text)
        elif ours and (place.is_symlink() or place.exists()):
            if place.is_dir() and not place.is_symlink():
                if any(text.startswith("own") for _, text in look(place).values()):
                    return
                shutil.rmtree(place)
            else:
                place.unlink()
            if deed == "link":
                place.symlink_to(self.outside)

    def _parents(self, place: Path) -> list[Path]:
        return [parent for parent in place.parents if self.tree in parent.parents]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_the_tree_is_the_commit_s_and_what_containers_wrote_is_never_lost(steps: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root, outside = Path(directory, "root"), Path(directory, "outside")
        outside.mkdir()
        (outside / "a").write_text("the host's")
        (root / "tree").mkdir(parents=True)
        container = Container(root / "tree", outside)
        tracked: Files = {}
        for number, (files, deeds, cut) in enumerate(steps):
            for deed, path in deeds:
                container.act(deed, path, tracked)
            checkout = write_checkout(root, number, files)
            if cut is not None:
                switch_cut_off(checkout, cut)
            asyncio.run(switch(checkout))
            tracked = files
            found = look(root / "tree")
            for path, content in look(checkout.path).items():
                assert found[path] == content, path
            kept = [text for _, text in found.values() if text.startswith("own")]
            assert sorted(kept) == sorted(container.own)
            assert look(outside) == {"a": (0o644, "the host's")}
            stale = {
                path
                for path, (_, text) in found.items()
                if path not in files and not text.startswith("own") and text != str(outside)
            }
            assert not stale
