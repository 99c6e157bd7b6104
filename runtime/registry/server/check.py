"""Checking a registry's storage: every fault that can be found by reading all of it."""

from __future__ import annotations

import hashlib

from runtime.oci.digest import algorithm, encoded
from runtime.registry.server.storage import Storage
from runtime.registry.transfer import PIECE


def check(storage: Storage, *, content: bool = True) -> tuple[str, ...]:
    """Faults as sentences, none where all is well; `content` False reads no blob. Blocks."""
    connection = storage.database.connection()
    faults = []
    blobs = connection.execute("SELECT digest, size FROM blobs WHERE NOT condemned").fetchall()
    for digest, size in blobs:
        try:
            with open(storage.blob_path(digest), "rb") as file:
                running, length = hashlib.new(algorithm(digest)), 0
                while content and (piece := file.read(PIECE)):
                    running.update(piece)
                    length += len(piece)
        except FileNotFoundError:
            faults.append(f"blob {digest} has lost its file")
            continue
        if content and (length != size or running.hexdigest() != encoded(digest)):
            faults.append(f"blob {digest} is damaged")
    for repository, digest in connection.execute(
        "SELECT repository, digest FROM links WHERE NOT EXISTS "
        "(SELECT 1 FROM blobs WHERE blobs.digest = links.digest AND NOT condemned)"
    ):
        faults.append(f"repository {repository} has a blob that is not there: {digest}")
    for repository, name in connection.execute(
        "SELECT repository, name FROM tags WHERE NOT EXISTS (SELECT 1 FROM manifests "
        "WHERE manifests.repository = tags.repository AND manifests.digest = tags.digest)"
    ):
        faults.append(f"tag {repository}:{name} leads nowhere")
    for repository, digest, stored in connection.execute(
        "SELECT repository, digest, content FROM manifests"
    ):
        if hashlib.new(algorithm(digest), stored).hexdigest() != encoded(digest):
            faults.append(f"manifest {repository}@{digest} is damaged")
    return tuple(faults)


def incomplete(storage: Storage) -> tuple[str, ...]:
    """Manifests that name blobs which their repository does not have.

    A proxy's are so until somebody pulls them; so are those with layers elsewhere.
    """
    rows = storage.database.connection().execute(
        "SELECT DISTINCT repository, manifest FROM parts WHERE NOT is_manifest AND NOT EXISTS "
        "(SELECT 1 FROM links WHERE links.repository = parts.repository "
        "AND links.digest = parts.digest)"
    )
    return tuple(f"{repository}@{manifest}" for repository, manifest in rows)
