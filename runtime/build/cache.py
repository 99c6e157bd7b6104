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
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import ImageError
from runtime.images.layers import Layer
from runtime.images.leases import Lease
from runtime.images.store import ImageStore
from runtime.linux.files import locked, write_atomically
from runtime.oci.descriptor import Descriptor
from runtime.oci.digest import digest_of, encoded
from runtime.oci.documents import serialise

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedStep:
    """A step's result; `created` in RFC 3339 is when it was made."""

    layer: Layer
    created: str


class StepCache:
    """The cache of an image store; several builds share it."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._directory = store.root / "pins" / "build"
        self._locks = store.root / "locks" / "steps"
        for directory in (self._directory, self._locks):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @staticmethod
    def key(fields: Mapping[str, Any]) -> str:
        """The key (a digest) of what decides a step's result."""
        return digest_of(serialise({**fields, "version": _VERSION}))

    @contextlib.contextmanager
    def working_on(self, key: str) -> Iterator[None]:
        """One build at a time makes a step; the others wait and find it made."""
        path = self._locks / encoded(key)
        with locked(path):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def find(self, key: str, lease: Lease) -> CachedStep | None:
        """A step's result, protected by the lease; None where there is none that is whole."""
        entry, _ = self._paths(key)
        try:
            document = json.loads(entry.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return None  # of a version that wrote otherwise, or damaged: made again
        try:
            layer = Layer(
                diff_id=document["diff_id"],
                chain_id=document["chain_id"],
                descriptor=Descriptor.from_document(document["descriptor"]),
                size=document["size"],
            )
            created = str(document["created"])
        except (KeyError, TypeError, ImageError):
            return None
        if not self._store.blobs.claim(layer.descriptor.digest, lease):
            return None
        with lease.publishing(layer.chain_id):
            if self._store.layers.record(layer.chain_id) is None:
                return None
        os.utime(entry)  # when it was last of use
        return CachedStep(layer=layer, created=created)

    def put(self, key: str, step: CachedStep) -> None:
        """Remember a step's result."""
        entry, pin = self._paths(key)
        layer = step.layer
        pin.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(
            pin, f"{layer.descriptor.digest}\n{layer.chain_id}\n".encode(), durable=False
        )
        document = {
            "diff_id": layer.diff_id,
            "chain_id": layer.chain_id,
            "descriptor": layer.descriptor.document(),
            "size": layer.size,
            "created": step.created,
        }
        write_atomically(entry, serialise(document), durable=False)

    def clear(self) -> int:
        """Forget everything; the number of entries. What they kept goes with the next
        collection."""
        count = 0
        for directory, _, names in os.walk(self._directory):
            for name in names:
                Path(directory, name).unlink(missing_ok=True)
                count += name.endswith(".json")
        return count

    def _paths(self, key: str) -> tuple[Path, Path]:
        name = encoded(key)
        directory = self._directory / name[:2]
        return directory / f"{name}.json", directory / f"{name}.pin"
