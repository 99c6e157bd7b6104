"""Build caches in a registry: an artifact of their own, or part of the image ("inline").

An artifact's config lists what steps have made, by their keys, and its layers are theirs. An
image carries the same for its own layers in an annotation. Of either, only the list is
fetched at first; the layer of a step comes when a build wants it. Taking a cache over is
trusting whoever may write to that name.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runtime.build.cache import StepCache
from runtime.build.waiting import finish
from runtime.errors import ImageError
from runtime.images.layers import Layer
from runtime.images.leases import Lease
from runtime.images.store import ImageStore
from runtime.oci.descriptor import Descriptor
from runtime.oci.digest import check_digest, is_digest
from runtime.oci.documents import serialise
from runtime.oci.image_config import ImageConfig
from runtime.registry.artifacts import Artifact, fetch_blobs, push_artifact, read_artifact
from runtime.registry.endpoints import RegistryConfig

CONFIG_TYPE = "application/vnd.bayplan.buildcache.v1+json"
ANNOTATION = "bayplan.buildcache.v1"


class RegistryCache:
    """What a name in a registry knows of steps. Threads may share it."""

    def __init__(
        self,
        reference: str,
        *,
        store: ImageStore,
        lease: Lease,
        config: RegistryConfig | None,
        wait: Callable[[float], object],
    ) -> None:
        self.reference = reference
        self._store = store
        self._cache = StepCache(store)
        self._lease = lease
        self._config = config
        self._wait = wait
        self._mutex = threading.Lock()
        artifact = finish(read_artifact(reference, config), wait)
        self._steps = steps_of(artifact)

    def take(self, key: str) -> bool:
        """Have a step's result in the local cache; False where this one does not know it.

        Raises RegistryError and ImageError where it knows and does not give it.
        """
        with self._mutex:
            document = self._steps.pop(key, None)
        if document is None:
            return False
        descriptor = Descriptor.from_document(document["descriptor"])
        fetching = fetch_blobs(
            self.reference,
            [descriptor],
            store=self._store,
            lease=self._lease,
            config=self._config,
        )
        finish(fetching, self._wait)
        self._cache.take(key, document)
        return True


def steps_of(artifact: Artifact) -> dict[str, dict[str, Any]]:
    """The steps that an artifact lists, by key; raises ImageError for what is no cache."""
    manifest = artifact.manifest
    try:
        if manifest.config.media_type == CONFIG_TYPE:
            listed = json.loads(artifact.config)["steps"]
        elif ANNOTATION in manifest.annotations:
            config = ImageConfig.from_bytes(artifact.config)
            listed = {
                key: {
                    "diff_id": config.diff_ids[number],
                    "descriptor": manifest.layers[number].document(),
                    "size": manifest.layers[number].size,
                    "created": created,
                }
                for key, (number, created) in json.loads(manifest.annotations[ANNOTATION]).items()
            }
        else:
            raise ImageError("it holds no build cache")
        for key, document in listed.items():
            if not is_digest(key):
                raise ValueError(f"{key!r} is no key")
            check_digest(document["diff_id"])
            Descriptor.from_document(document["descriptor"])
            str(document["created"]), int(document["size"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as exc:
        raise ImageError("the list of its steps cannot be read") from exc
    return dict(listed)


def export_to_registry(
    store: ImageStore,
    keys: Sequence[str],
    reference: str,
    *,
    lease: Lease,
    config: RegistryConfig | None,
) -> int:
    """Push the results of steps; the number of steps. Raises RegistryError."""
    cache = StepCache(store)
    steps: dict[str, Mapping[str, Any]] = {}
    layers: dict[str, Descriptor] = {}
    for key in keys:
        document = cache.document(key)
        if document is None:
            continue
        descriptor = Descriptor.from_document(document["descriptor"])
        if store.blobs.claim(descriptor.digest, lease):
            steps[key] = document
            layers[descriptor.digest] = descriptor
    asyncio.run(
        push_artifact(
            reference,
            config_type=CONFIG_TYPE,
            content=serialise({"steps": dict(sorted(steps.items()))}),
            layers=[layers[digest] for digest in sorted(layers)],
            store=store,
            lease=lease,
            config=config,
        )
    )
    return len(steps)


def inline_annotation(
    store: ImageStore, keys: Sequence[str], layers: Sequence[Layer]
) -> dict[str, str]:
    """The annotation by which an image is its own cache."""
    cache = StepCache(store)
    places = {layer.descriptor.digest: number for number, layer in enumerate(layers)}
    steps = {}
    for key in keys:
        document = cache.document(key)
        number = None if document is None else places.get(document["descriptor"]["digest"])
        if document is not None and number is not None:
            steps[key] = [number, document["created"]]
    return {ANNOTATION: serialise(steps).decode()}
