"""Collecting garbage while the registry serves: retention first, then mark and sweep.

Nothing stops meanwhile. Each step is a transaction that checks by itself what it relies
on, and a push checks in a transaction of its own that the blobs which a manifest names are
there: it finds them and thereby keeps them, or is told that they are gone and sends them
again. A blob is first condemned, which hides it, and its file removed in a later
transaction unless somebody has uploaded it again in between.
"""

from __future__ import annotations

import fnmatch
import time
from dataclasses import dataclass

from runtime.oci.digest import is_digest
from runtime.registry.server.config import Retention
from runtime.registry.server.storage import Storage, remove_manifests

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection removed; `freed` in bytes, `seconds` how long it took."""

    tags: int = 0
    manifests: int = 0
    blobs: int = 0
    freed: int = 0
    seconds: float = 0.0


def collect(
    storage: Storage, retention: Retention, *, pulled_age: float | None = None
) -> Collected:
    """Remove what retention does not keep, and what nothing names any more.

    `pulled_age`: manifests that nobody has pulled for so many seconds go, tagged or not, as
    a proxy's content does. Blocks; others may go on working.
    """
    started = time.monotonic()
    tags = manifests = 0
    for repository in _repositories(storage):
        tags += _expire_tags(storage, repository, retention)
        manifests += _sweep_manifests(storage, repository, retention, pulled_age)
    _unlink_blobs(storage, retention)
    blobs, freed = _sweep_blobs(storage)
    freed += _sweep_strays(storage)
    return Collected(
        tags=tags,
        manifests=manifests,
        blobs=blobs,
        freed=freed,
        seconds=time.monotonic() - started,
    )


def _repositories(storage: Storage) -> list[str]:
    rows = storage.database.connection().execute("SELECT DISTINCT repository FROM manifests")
    return [row[0] for row in rows]


def _expire_tags(storage: Storage, repository: str, retention: Retention) -> int:
    if retention.newest is None and retention.tag_age is None:
        return 0
    now = storage.clock()
    removed = 0
    with storage.database.writing() as connection:
        rows = connection.execute(
            "SELECT name, pushed_at FROM tags WHERE repository = ? ORDER BY pushed_at DESC, name",
            (repository,),
        ).fetchall()
        rank = 0
        for name, pushed_at in rows:
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in retention.protect):
                continue
            rank += 1
            surplus = retention.newest is not None and rank > retention.newest
            old = retention.tag_age is not None and pushed_at < now - retention.tag_age
            if surplus or old:
                connection.execute(
                    "DELETE FROM tags WHERE repository = ? AND name = ?", (repository, name)
                )
                removed += 1
    return removed


def _sweep_manifests(
    storage: Storage, repository: str, retention: Retention, pulled_age: float | None
) -> int:
    if retention.untagged_age is None and pulled_age is None:
        return 0
    now = storage.clock()
    with storage.database.writing() as connection:
        rows = connection.execute(
            "SELECT digest, subject, pushed_at, pulled_at FROM manifests WHERE repository = ?",
            (repository,),
        ).fetchall()
        tagged = {
            row[0]
            for row in connection.execute(
                "SELECT digest FROM tags WHERE repository = ?", (repository,)
            )
        }
        children: dict[str, list[str]] = {}
        for manifest, digest in connection.execute(
            "SELECT manifest, digest FROM parts WHERE repository = ? AND is_manifest",
            (repository,),
        ):
            children.setdefault(manifest, []).append(digest)
        referrers: dict[str, list[str]] = {}
        kept = []
        for digest, subject, pushed_at, pulled_at in rows:
            if subject:
                referrers.setdefault(subject, []).append(digest)
            if pulled_age is not None:
                live = max(pushed_at, pulled_at) >= now - pulled_age
            else:
                assert retention.untagged_age is not None
                live = digest in tagged or pushed_at >= now - retention.untagged_age
            if live:
                kept.append(digest)
        marked: set[str] = set()
        while kept:
            digest = kept.pop()
            if digest not in marked:
                marked.add(digest)
                kept += children.get(digest, ())
                kept += referrers.get(digest, ())
        gone = [row[0] for row in rows if row[0] not in marked]
        return remove_manifests(connection, repository, gone)


def _unlink_blobs(storage: Storage, retention: Retention) -> None:
    """Take from repositories the blobs that none of their manifests names."""
    oldest = storage.clock() - retention.unused_age
    while True:
        with storage.database.writing() as connection:
            found = connection.execute(
                "DELETE FROM links WHERE (repository, digest) IN ("
                "SELECT repository, digest FROM links WHERE seen_at < ? AND NOT EXISTS ("
                "SELECT 1 FROM parts WHERE parts.repository = links.repository "
                "AND parts.digest = links.digest) LIMIT ?)",
                (oldest, _BATCH),
            )
        if found.rowcount < _BATCH:
            return


def _sweep_blobs(storage: Storage) -> tuple[int, int]:
    """Delete the blobs that no repository has."""
    with storage.database.writing() as connection:
        connection.execute(
            "UPDATE blobs SET condemned = 1 WHERE NOT EXISTS "
            "(SELECT 1 FROM links WHERE links.digest = blobs.digest)"
        )
    removed = freed = 0
    condemned = storage.database.connection().execute(
        "SELECT digest, size FROM blobs WHERE condemned"
    )
    for digest, size in condemned.fetchall():
        with storage.database.writing() as connection:
            found = connection.execute(
                "DELETE FROM blobs WHERE digest = ? AND condemned", (digest,)
            )
            if found.rowcount:
                storage.blob_path(digest).unlink(missing_ok=True)
                removed += 1
                freed += size
    return removed, freed


def _sweep_strays(storage: Storage) -> int:
    """Remove files under `blobs/` that the database does not know: a crash left them."""
    freed = 0
    for digest, path in list(storage.blob_files()):
        connection = storage.database.connection()
        query = "SELECT 1 FROM blobs WHERE digest = ?"
        if is_digest(digest) and connection.execute(query, (digest,)).fetchone():
            continue
        # An upload moves its file and commits its row under the write lock: look again there.
        with storage.database.writing() as locked:
            if locked.execute(query, (digest,)).fetchone() is None and path.exists():
                freed += path.stat().st_size
                path.unlink()
    return freed
