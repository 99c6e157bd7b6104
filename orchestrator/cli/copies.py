"""What `bay cp` does: paths, tar streams, and the words for what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.cli import output
from orchestrator.cli.errors import UsageError
from orchestrator.cli.session import Session
from orchestrator.engine.copying import Place, Rules, deliver, find, open_tree, pack, unpack


class Wishes:
    """The options: keep owners, follow a link that the source is."""

    def __init__(self, *, archive: bool, follow: bool) -> None:
        self.archive = archive
        self.follow = follow

    def rules(self, *, plain: bool) -> Rules:
        return Rules(archive=self.archive, plain=plain, skipped=_skipped)


def take(
    session: Session, container: dict[str, Any], path: str, target: str, wishes: Wishes
) -> None:
    """Copy out of a container, to a path here or as a tar stream to standard output."""
    if target == "-" and sys.stdout.isatty():
        raise UsageError("a tar stream on a terminal helps nobody", hint="redirect the output")
    with open_tree(Path(session.root), Path(session.run), container["id"]) as tree:
        place = _source(tree.fd, path, wishes, f"{container['service']}:{path}")
        try:
            if target == "-":
                pack(place, _name(path), sys.stdout.buffer, wishes.rules(plain=False))
            else:
                here = os.path.join(session.cwd, target)
                deliver(place, _name(path), None, here, wishes.rules(plain=True))
        finally:
            place.close()


def give(
    session: Session,
    containers: Sequence[dict[str, Any]],
    source: str,
    path: str,
    wishes: Wishes,
) -> None:
    """Copy into containers, from a path here or a tar stream on standard input."""
    if source == "-" and len(containers) > 1:
        raise UsageError("a stream can be given to one container only", hint="--index chooses one")
    for container in containers:
        with open_tree(Path(session.root), Path(session.run), container["id"]) as tree:
            if source == "-":
                _unpack(tree.fd, path, wishes, f"{container['service']}:{path}")
                continue
            here = os.path.join(session.cwd, source)
            place = _source(None, here, wishes, source)
            try:
                name = os.path.basename(os.path.normpath(here))
                deliver(place, name, tree.fd, path, wishes.rules(plain=False))
            finally:
                place.close()


def _source(root: int | None, path: str, wishes: Wishes, shown: str) -> Place:
    try:
        place = find(root, path, follow=wishes.follow)
    except FileNotFoundError:
        raise UsageError(f"{shown}: no such file or directory") from None
    if place.status is None:
        place.close()
        raise UsageError(f"{shown}: no such file or directory")
    return place


def _unpack(root: int, path: str, wishes: Wishes, shown: str) -> None:
    place = _source(root, path.rstrip("/") + "/", wishes, shown)
    try:
        directory = place.open_directory()
        try:
            unpack(sys.stdin.buffer, directory, wishes.rules(plain=False))
        finally:
            os.close(directory)
    finally:
        place.close()


def _name(path: str) -> str:
    return os.path.basename(os.path.normpath("/" + path)) or "rootfs"


def _skipped(name: str) -> None:
    output.warn(f"{name} is neither a file, a directory nor a link, and is left out")
