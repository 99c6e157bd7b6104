"""The cache mounts of builds (`RUN --mount=type=cache`) as archives, to take them elsewhere.

An archive is a plain tar of what the mount holds. A mount that a step uses now is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.build.cache import StepCache
from runtime.errors import InUse, NotFound
from runtime.images.merged import MergedTree
from runtime.images.pack import pack
from runtime.images.store import ImageStore
from runtime.images.streams import CHUNK, LONGEST_MAGIC, Prefixed, decompressed, media_type
from runtime.images.tar_reader import Source
from runtime.images.unpack import unpack
from runtime.linux.files import try_lock
from runtime.tree_sizes import tree_size

_DATA = "data"
_ID = "id"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMount:
    """A cache mount: its ID (its target where the Dockerfile gives none), its bytes, and when
    it was last of use (seconds since the epoch). A private copy has the ID of the others."""

    id: str
    size: int
    used: float


def mount_name(id: str) -> str:
    """The directory of a cache mount. The ID is the author's text: hashed, it can be no path
    (CVE-2024-9675)."""
    return hashlib.sha256(id.encode()).hexdigest()


def cache_mounts(store: ImageStore) -> tuple[CacheMount, ...]:
    """All cache mounts of a store, by their IDs."""
    found = []
    directory = StepCache(store).mounts
    for name in sorted(os.listdir(directory)) if directory.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
            path = directory / name
            id = (path / _ID).read_text(encoding="utf-8")
            size, used = tree_size(path / _DATA), path.stat().st_mtime
            found.append(CacheMount(id=id, size=size, used=used))
    return tuple(sorted(found, key=lambda mount: mount.id))


def export_mount(store: ImageStore, id: str, sink: Callable[[bytes], object]) -> int:
    """Give the archive of a cache mount to `sink`; the number of its members.

    Raises NotFound, and InUse while a step uses it.
    """
    cache = StepCache(store)
    data = cache.mounts / mount_name(id) / _DATA
    with _unused(cache, id), MergedTree(()) as nothing:
        if not data.is_dir():
            raise NotFound("cache mount", id)
        return pack(data, sink, lower=nothing, settle_times=False).entries


def import_mount(store: ImageStore, id: str, source: Source) -> int:
    """Make a cache mount of an archive, plain or compressed, in the place of the one that is
    there; the number of its members. Raises ImageError, and InUse while a step uses it."""
    cache = StepCache(store)
    start = b""
    while len(start) < LONGEST_MAGIC and (piece := source.read(CHUNK)):
        start += piece
    plain = decompressed(Prefixed(start, source), media_type(start))
    with store.lease() as lease, MergedTree(()) as nothing:
        draft = lease.path("cache")
        (draft / _DATA).mkdir(parents=True)
        entries = unpack(plain, draft / _DATA, lower=nothing).entries
        (draft / _ID).write_text(id, encoding="utf-8")
        target = cache.mounts / mount_name(id)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _unused(cache, id):
            with contextlib.suppress(FileNotFoundError):
                os.rename(target, lease.path("replaced"))
            os.rename(draft, target)
        return entries


@contextlib.contextmanager
def _unused(cache: StepCache, id: str) -> Iterator[Path]:
    """Keep steps from using the mount."""
    path = cache.mount_locks / f"{mount_name(id)}.used"
    held = try_lock(path)
    if held is None:
        raise InUse("cache mount", id, ("a build step",))
    try:
        yield path
    finally:
        os.close(held)
