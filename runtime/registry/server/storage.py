"""What a registry keeps: blobs as files by digest, everything else in a database.

`<storage>/blobs/<algorithm>/<2>/<hex>` are the blobs, shared by all repositories;
`registry.db` says which repository has which blob, and holds manifests and tags;
`uploads/` are blobs on their way. A blob's file is in its place before its row is
committed, and only a blob whose row is condemned loses its file: a crash leaves at worst a
file without a row, which the next collection removes. All methods block.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.linux.files import sync_directory
from runtime.oci.descriptor import Descriptor
from runtime.oci.digest import algorithm, check_digest, encoded, is_digest
from runtime.oci.manifest import Manifest
from runtime.registry.repository import Document
from runtime.registry.server.schema import Database

_SEEN_GRAIN = 60.0  # a blob that is looked at is not noted more often, in seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A manifest or index in a repository."""

    digest: str
    media_type: str
    content: bytes


class MissingParts(Exception):
    """A manifest names blobs or manifests that the repository does not have."""

    def __init__(self, digests: tuple[str, ...]) -> None:
        super().__init__(f"not in the repository: {', '.join(digests)}")
        self.digests = digests


class Storage:
    """The content of a registry under `root`; safe for several threads and processes."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self.uploads = root / "uploads"
        self.clock = clock
        for directory in (root / "blobs" / "sha256", root / "blobs" / "sha512", self.uploads):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.database = Database(root / "registry.db")

    def close(self) -> None:
        self.database.close()

    # Blobs

    def blob_path(self, digest: str) -> Path:
        """The file of a blob, there or not; a text that is no digest is refused."""
        check_digest(digest)
        name = encoded(digest)
        return self.root / "blobs" / algorithm(digest) / name[:2] / name

    def find_blob(self, repository: str, digest: str) -> int | None:
        """The size of a repository's blob, None where it has none. Looking keeps it for a while."""
        row = (
            self.database.connection()
            .execute(
                "SELECT blobs.size, links.seen_at FROM links JOIN blobs USING (digest) "
                "WHERE links.repository = ? AND links.digest = ? AND NOT blobs.condemned",
                (repository, digest),
            )
            .fetchone()
        )
        if row is None:
            return None
        size, seen_at = row
        if seen_at < self.clock() - _SEEN_GRAIN and not self._link(repository, digest):
            return None
        return int(size)

    def mount_blob(self, repository: str, digest: str, source: str | None) -> bool:
        """Give a repository a blob of another one (None: of any); False where there is none."""
        if source is not None and self.find_blob(source, digest) is None:
            return False
        return self._link(repository, digest)

    def add_blob(self, repository: str, digest: str, size: int, file: Path) -> None:
        """Take a verified, synced file as a blob; it is moved, or removed where it is known."""
        target = self.blob_path(digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        with self.database.writing() as connection:
            row = connection.execute(
                "SELECT condemned FROM blobs WHERE digest = ?", (digest,)
            ).fetchone()
            if row is None or row[0] or not target.exists():
                os.replace(file, target)
                sync_directory(target.parent)
            else:
                file.unlink()
            connection.execute(
                "INSERT OR REPLACE INTO blobs (digest, size, condemned) VALUES (?, ?, 0)",
                (digest, size),
            )
            connection.execute(
                "INSERT OR REPLACE INTO links VALUES (?, ?, ?)", (repository, digest, self.clock())
            )

    def remove_blob(self, repository: str, digest: str) -> bool:
        """Take a blob from a repository; False where it does not have it."""
        with self.database.writing() as connection:
            found = connection.execute(
                "DELETE FROM links WHERE repository = ? AND digest = ?", (repository, digest)
            )
            return found.rowcount > 0

    def expected_size(self, repository: str, digest: str) -> int | None:
        """The size that a manifest of the repository gives for a blob."""
        row = (
            self.database.connection()
            .execute(
                "SELECT size FROM parts WHERE repository = ? AND digest = ? AND NOT is_manifest",
                (repository, digest),
            )
            .fetchone()
        )
        return None if row is None else int(row[0])

    def _link(self, repository: str, digest: str) -> bool:
        with self.database.writing() as connection:
            known = connection.execute(
                "SELECT 1 FROM blobs WHERE digest = ? AND NOT condemned", (digest,)
            ).fetchone()
            if known is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO links VALUES (?, ?, ?)",
                    (repository, digest, self.clock()),
                )
        return known is not None

    # Manifests

    def put_manifest(
        self,
        repository: str,
        document: Document,
        tags: Sequence[str] = (),
        *,
        complete: bool = True,
    ) -> str:
        """Store a manifest and point tags to it; the digest of its subject, or "".

        With `complete`, raises MissingParts where the repository does not have what it names.
        """
        parsed = document.index() if document.is_index else document.manifest()
        parts: dict[str, tuple[int, bool]] = {}
        if isinstance(parsed, Manifest):
            kind = parsed.artifact_type or parsed.config.media_type
            for part in (parsed.config, *parsed.layers):
                parts[part.digest] = (part.size, False)
            # Layers with addresses of their own need not be here ("Pushing Manifests").
            elsewhere = {part.digest for part in parsed.layers if part.urls}
        else:
            kind = parsed.artifact_type
            for part in parsed.manifests:
                parts[part.digest] = (part.size, True)
            elsewhere = set()
        subject = parsed.subject.digest if parsed.subject is not None else ""
        now = self.clock()
        key = (repository, document.digest)
        with self.database.writing() as connection:
            if complete:
                missing = tuple(
                    digest
                    for digest, (_size, is_manifest) in parts.items()
                    if digest not in elsewhere
                    and connection.execute(
                        "SELECT 1 FROM manifests WHERE repository = ? AND digest = ?"
                        if is_manifest
                        else "SELECT 1 FROM links WHERE repository = ? AND digest = ?",
                        (repository, digest),
                    ).fetchone()
                    is None
                )
                if missing:
                    raise MissingParts(missing)
            connection.execute(
                "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET pushed_at = excluded.pushed_at, "
                "pulled_at = excluded.pulled_at, media_type = excluded.media_type",
                (
                    *key,
                    document.media_type,
                    document.content,
                    kind,
                    json.dumps(dict(parsed.annotations)),
                    subject,
                    now,
                    now,
                ),
            )
            connection.executemany(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?)",
                [(*key, digest, size, kind) for digest, (size, kind) in parts.items()],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?)",
                [(repository, tag, document.digest, now, now) for tag in tags],
            )
        return subject

    def find_manifest(self, repository: str, reference: str) -> Stored | None:
        """The manifest of a tag or digest."""
        connection = self.database.connection()
        if is_digest(reference):
            row = connection.execute(
                "SELECT digest, media_type, content, pulled_at FROM manifests "
                "WHERE repository = ? AND digest = ?",
                (repository, reference),
            ).fetchone()
        else:
            row = connection.execute(
                "SELECT manifests.digest, media_type, content, pulled_at FROM tags "
                "JOIN manifests USING (repository, digest) WHERE repository = ? AND tags.name = ?",
                (repository, reference),
            ).fetchone()
        if row is None:
            return None
        if row[3] < self.clock() - _SEEN_GRAIN:
            connection.execute(
                "UPDATE manifests SET pulled_at = ? WHERE repository = ? AND digest = ?",
                (self.clock(), repository, row[0]),
            )
        return Stored(digest=row[0], media_type=row[1], content=row[2])

    def remove_manifest(self, repository: str, digest: str) -> bool:
        """Remove a manifest and the tags that point to it; False where it is not there."""
        with self.database.writing() as connection:
            return remove_manifests(connection, repository, (digest,)) > 0

    # Tags

    def remove_tag(self, repository: str, tag: str) -> bool:
        with self.database.writing() as connection:
            found = connection.execute(
                "DELETE FROM tags WHERE repository = ? AND name = ?", (repository, tag)
            )
            return found.rowcount > 0

    def tag_checked_at(self, repository: str, tag: str) -> float | None:
        """When a proxy last compared a tag with its remote."""
        row = (
            self.database.connection()
            .execute(
                "SELECT checked_at FROM tags WHERE repository = ? AND name = ?", (repository, tag)
            )
            .fetchone()
        )
        return None if row is None else float(row[0])

    def set_tag(self, repository: str, tag: str, digest: str) -> bool:
        """Point a tag to a manifest that is there; False where it is not."""
        now = self.clock()
        with self.database.writing() as connection:
            known = connection.execute(
                "SELECT 1 FROM manifests WHERE repository = ? AND digest = ?", (repository, digest)
            ).fetchone()
            if known is None:
                return False
            connection.execute(
                "INSERT INTO tags VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "digest = excluded.digest, checked_at = excluded.checked_at",
                (repository, tag, digest, now, now),
            )
        return True

    def has_repository(self, repository: str) -> bool:
        connection = self.database.connection()
        return any(
            connection.execute(
                f"SELECT 1 FROM {table} WHERE repository = ? LIMIT 1",
                (repository,),
            ).fetchone()
            for table in ("manifests", "links")
        )

    # Listings: one page after a name, in the order of bytes; True where there is more

    def tags(self, repository: str, last: str, count: int) -> tuple[list[str], bool]:
        rows = self.database.connection().execute(
            "SELECT name FROM tags WHERE repository = ? AND name > ? ORDER BY name LIMIT ?",
            (repository, last, count + 1),
        )
        return _page([row[0] for row in rows], count)

    def repositories(self, last: str, count: int) -> tuple[list[str], bool]:
        """Repositories that hold a manifest."""
        rows = self.database.connection().execute(
            "SELECT DISTINCT repository FROM manifests WHERE repository > ? "
            "ORDER BY repository LIMIT ?",
            (last, count + 1),
        )
        return _page([row[0] for row in rows], count)

    def referrers(
        self, repository: str, subject: str, artifact_type: str, last: str, count: int
    ) -> tuple[list[Descriptor], bool]:
        rows = self.database.connection().execute(
            "SELECT digest, media_type, length(content), artifact_type, annotations "
            "FROM manifests WHERE repository = ? AND subject = ? AND digest > ? "
            "AND (? = '' OR artifact_type = ?) ORDER BY digest LIMIT ?",
            (repository, subject, last, artifact_type, artifact_type, count + 1),
        )
        found = [
            Descriptor(
                media_type=media_type,
                digest=digest,
                size=size,
                artifact_type=kind,
                annotations=json.loads(annotations),
            )
            for digest, media_type, size, kind, annotations in rows
        ]
        return found[:count], len(found) > count

    def counts(self) -> Mapping[str, int]:
        """How much there is, for metrics."""
        connection = self.database.connection()
        blobs, size = connection.execute("SELECT count(*), total(size) FROM blobs").fetchone()
        (manifests,) = connection.execute("SELECT count(*) FROM manifests").fetchone()
        (tags,) = connection.execute("SELECT count(*) FROM tags").fetchone()
        return {"blobs": blobs, "blob_bytes": int(size), "manifests": manifests, "tags": tags}

    def blob_files(self) -> Iterator[tuple[str, Path]]:
        """Digest and file of everything under `blobs/`."""
        for kind in ("sha256", "sha512"):
            for directory in list(os.scandir(self.root / "blobs" / kind)):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    for entry in list(os.scandir(directory.path)):
                        yield f"{kind}:{entry.name}", Path(entry.path)


def remove_manifests(
    connection: sqlite3.Connection, repository: str, digests: Sequence[str]
) -> int:
    """Remove manifests, with their tags and what they name, inside a transaction."""
    removed = 0
    for digest in digests:
        key = (repository, digest)
        connection.execute("DELETE FROM tags WHERE repository = ? AND digest = ?", key)
        connection.execute("DELETE FROM parts WHERE repository = ? AND manifest = ?", key)
        removed += connection.execute(
            "DELETE FROM manifests WHERE repository = ? AND digest = ?", key
        ).rowcount
    return removed


def _page(names: list[str], count: int) -> tuple[list[str], bool]:
    return names[:count], len(names) > count
