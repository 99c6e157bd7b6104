"""Build caches that travel: `cache_to` and `cache_from` with a local directory.

The directory holds one record and one blob per step, both by digest. A record says what a
step made of what it started from, so taking a cache over is trusting whoever wrote it.
Source: BuildKit README ("Export cache", "local").
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from runtime.build.cache import StepCache
from runtime.errors import ImageError
from runtime.images.leases import Lease
from runtime.images.store import ImageStore
from runtime.linux.files import write_atomically
from runtime.oci.descriptor import Descriptor
from runtime.oci.digest import algorithm, check_digest, encoded, is_digest
from runtime.oci.documents import serialise

_log = logging.getLogger(__name__)
_CHUNK = 1024 * 1024


def export_cache(store: ImageStore, keys: Iterable[str], directory: Path) -> int:
    """Write the results of steps, by their keys, to a directory; the number of steps.

    What is there already is kept; files appear whole.
    """
    cache = StepCache(store)
    count = 0
    for name in ("steps", "blobs/sha256"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    for key in keys:
        document = cache.document(key)
        if document is None:
            continue
        descriptor = Descriptor.from_document(document["descriptor"])
        target = directory / "blobs" / algorithm(descriptor.digest) / encoded(descriptor.digest)
        if not target.exists():
            draft = target.with_name(f".{target.name}.{os.getpid()}")
            shutil.copyfile(store.blobs.path(descriptor.digest), draft)
            os.replace(draft, target)
        write_atomically(directory / "steps" / f"{encoded(key)}.json", serialise(document))
        count += 1
    return count


def import_cache(store: ImageStore, directory: Path, lease: Lease) -> int:
    """Take the results of steps over from a directory; the number of new ones.

    Blobs are verified. A damaged record is passed over, with a warning in the log.
    """
    cache = StepCache(store)
    count = 0
    try:
        names = sorted(os.listdir(directory / "steps"))
    except FileNotFoundError:
        return 0
    for name in names:
        key = f"sha256:{name.removesuffix('.json')}"
        if not is_digest(key) or cache.document(key) is not None:
            continue
        try:
            document = json.loads((directory / "steps" / name).read_bytes())
            descriptor = Descriptor.from_document(document["descriptor"])
            check_digest(document["diff_id"])
            _take_blob(store, directory, descriptor, lease)
            cache.take(key, document)
        except (ValueError, KeyError, TypeError, OSError, ImageError) as exc:
            _log.warning("build cache %s: step %s is passed over: %s", directory, name, exc)
            continue
        count += 1
    return count


def _take_blob(store: ImageStore, directory: Path, descriptor: Descriptor, lease: Lease) -> None:
    digest = descriptor.digest
    if store.blobs.claim(digest, lease):
        return
    path = directory / "blobs" / algorithm(digest) / encoded(digest)
    with open(path, "rb") as source, store.blobs.writing(lease, algorithm(digest)) as writer:
        while piece := source.read(_CHUNK):
            writer.write(piece)
        writer.commit(descriptor.media_type, expected=descriptor)
