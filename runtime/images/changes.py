"""What a writable layer changed, as `docker diff` tells it.

Source: Docker Engine API, "Get changes on a container's filesystem": a directory counts as
changed when something in it was.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from runtime.images.merged import MergedTree, Parts, check_depth, is_opaque, is_whiteout
from runtime.images.upper import shown

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Kind = Literal["A", "C", "D"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path: added, changed or deleted."""

    kind: Kind
    path: str


def changes(upper: str | os.PathLike[str], lower: MergedTree) -> tuple[Change, ...]:
    """All changes of the overlayfs directory `upper` over `lower`, by path."""
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = list(_changes(root, (), lower))
    finally:
        os.close(root)
    return tuple(sorted(found, key=lambda change: change.path))


def _changes(fd: int, parts: Parts, lower: MergedTree) -> Iterator[Change]:
    check_depth(parts)
    for name in sorted(map(os.fsencode, os.listdir(fd))):
        here = (*parts, name)
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        below = lower.entry(here)
        if is_whiteout(status):
            if below is not None:
                yield Change(kind="D", path=shown(here))
            continue
        yield Change(kind="A" if below is None else "C", path=shown(here))
        if not stat.S_ISDIR(status.st_mode):
            continue
        child = os.open(name, _DIRECTORY, dir_fd=fd)
        try:
            if below is not None and below.is_directory and is_opaque(child):
                there = {os.fsencode(kept) for kept in os.listdir(child)}
                for gone in lower.names(here):
                    if gone not in there:
                        yield Change(kind="D", path=shown((*here, gone)))
            yield from _changes(child, here, lower)
        finally:
            os.close(child)
