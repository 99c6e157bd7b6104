"""The step cache: what a step makes of what it starts from, by content.

A key is the digest of everything that decides a step's result: the chain ID of the layers
below, the instruction as it will run, and the content that it takes. Nothing that an image
says of itself (its config, its history) is part of it, so a forged image cannot plant a
result (CVE-2024-24557). Entries lie under `pins/build/`, where they keep their layers from
being collected.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import ImageError
from runtime.images.layers import Layer
from runtime.images.leases import Lease
from runtime.images.store import ImageStore
from runtime.linux.files import try_lock, write_atomically
from runtime.oci.descriptor import Descriptor
from runtime.oci.digest import check_digest, digest_of, encoded
from runtime.oci.documents import serialise
from runtime.removal import discard
from runtime.tree_sizes import tree_size

_log = logging.getLogger(__name__)
_VERSION = 1
_PATIENCE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedStep:
    """A step's result; `created` in RFC 3339 is when it was made."""

    layer: Layer
    created: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """A step's result or a cache mount: bytes, and when it was last of use (seconds since the
    epoch)."""

    path: Path
    size: int
    used: float


class StepCache:
    """The cache of an image store; several builds share it."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._directory = store.root / "pins" / "build"
        self._locks = store.root / "locks" / "steps"
        self.mounts = store.root / "build" / "cache-mounts"
        self.mount_locks = store.root / "locks" / "mounts"
        for directory in (self._directory, self._locks, self.mount_locks):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @staticmethod
    def key(fields: Mapping[str, Any]) -> str:
        """The key (a digest) of what decides a step's result."""
        return digest_of(serialise({**fields, "version": _VERSION}))

    @contextlib.contextmanager
    def working_on(self, key: str, wait: Callable[[float], object]) -> Iterator[None]:
        """One build at a time makes a step; the others wait and find it made.

        `wait` is called again and again while another build holds the step: it waits for the
        seconds that it is given, and raises where this build is to end.
        """
        path = self._locks / encoded(key)
        while (held := _lock_of(path)) is None:
            wait(_PATIENCE)
        try:
            yield
        finally:
            # Whoever waits sees that the file is gone and takes a new one.
            path.unlink(missing_ok=True)
            os.close(held)

    def find(
        self,
        key: str,
        lease: Lease,
        parents: Sequence[str],
        stop: Callable[[], object] | None = None,
    ) -> CachedStep | None:
        """A step's result on top of the chain `parents`, protected by the lease; None where
        there is none that is whole. A layer that is not unpacked there is unpacked; see
        `Layers.ensure` for `stop`."""
        document = self.document(key)
        if document is None:
            return None
        entry, _ = self._paths(key)
        try:
            diff_id = check_digest(document["diff_id"])
            descriptor = Descriptor.from_document(document["descriptor"])
            created = str(document["created"])
            if not self._store.blobs.claim(descriptor.digest, lease):
                return None
            layer = self._store.layers.ensure(
                descriptor, diff_id, parents=parents, lease=lease, stop=stop
            )
            os.utime(entry)  # when it was last of use
        except (KeyError, TypeError, ImageError) as exc:
            _log.warning("build cache entry %s is damaged and made again: %s", entry.name, exc)
            return None
        except FileNotFoundError:
            return None  # pruned meanwhile
        return CachedStep(layer=layer, created=created)

    def document(self, key: str) -> dict[str, Any] | None:
        """A step's record; None where there is none that can be read."""
        entry, _ = self._paths(key)
        try:
            document = json.loads(entry.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as exc:
            _log.warning("build cache entry %s is damaged: %s", entry.name, exc)
            return None
        return document if isinstance(document, dict) else None

    def put(self, key: str, step: CachedStep) -> None:
        """Remember a step's result."""
        layer = step.layer
        document = {
            "diff_id": layer.diff_id,
            "descriptor": layer.descriptor.document(),
            "size": layer.size,
            "created": step.created,
        }
        self._write(key, document, (layer.descriptor.digest, layer.chain_id))

    def take(self, key: str, document: Mapping[str, Any]) -> None:
        """Remember a step's result that comes from elsewhere, its blob being in the store."""
        self._write(key, document, (document["descriptor"]["digest"],))

    def _write(self, key: str, document: Mapping[str, Any], kept: Sequence[str]) -> None:
        entry, pin = self._paths(key)
        pin.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(pin, "".join(f"{digest}\n" for digest in kept).encode(), durable=False)
        write_atomically(entry, serialise(document), durable=False)

    def usage(self) -> tuple[CacheEntry, ...]:
        """All entries and cache mounts, those that were of use longest ago first."""
        found = []
        for path in self._directory.glob("*/*.json"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                size = int(json.loads(path.read_bytes()).get("size", 0))
                found.append(CacheEntry(path=path, size=size, used=path.stat().st_mtime))
        if self.mounts.is_dir():
            for path in self.mounts.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    used = path.stat().st_mtime
                    found.append(CacheEntry(path=path, size=tree_size(path), used=used))
        return tuple(sorted(found, key=lambda entry: entry.used))

    def prune(self, *, keep: int = 0, unused_since: float | None = None) -> int:
        """Forget what was of use longest ago, until `keep` bytes are left; the bytes forgotten.

        With `unused_since` (seconds since the epoch) entries that were of use later stay. What
        they kept in the store goes with its next collection. A cache mount that a step uses
        now stays.
        """
        entries = self.usage()
        left = sum(entry.size for entry in entries)
        forgotten = 0
        for entry in entries:
            if left <= keep and keep:
                break
            if unused_since is not None and entry.used >= unused_since:
                break
            if self._forget(entry.path):
                left -= entry.size
                forgotten += entry.size
        return forgotten

    def _forget(self, path: Path) -> bool:
        if path.suffix == ".json":
            path.unlink(missing_ok=True)
            path.with_suffix(".pin").unlink(missing_ok=True)
            return True
        held = try_lock(self.mount_locks / f"{path.name}.used")
        if held is None:
            return False
        try:
            discard(path)
        finally:
            os.close(held)
        return True

    def _paths(self, key: str) -> tuple[Path, Path]:
        name = encoded(key)
        directory = self._directory / name[:2]
        return directory / f"{name}.json", directory / f"{name}.pin"


def _lock_of(path: Path) -> int | None:
    """The lock file, locked; None while somebody else holds it or has just let go of it."""
    held = try_lock(path)
    if held is None:
        return None
    try:
        if os.path.samestat(os.fstat(held), os.stat(path)):
            return held
    except FileNotFoundError:
        pass  # unlinked by its last holder
    os.close(held)
    return None
