"""Manifests with content of our own in a registry: read and written document by document.

Where `pull` and `push` move whole images, a build cache wants a manifest, its config, and
then single blobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.errors import ImageError
from runtime.images.leases import Lease
from runtime.images.reference import Reference
from runtime.images.store import ImageStore, choose, host_platform
from runtime.oci.descriptor import MANIFEST, Descriptor
from runtime.oci.digest import digest_of
from runtime.oci.documents import MAX_DOCUMENT
from runtime.oci.manifest import Manifest
from runtime.registry.client import RegistryClient, read_bounded
from runtime.registry.endpoints import RegistryConfig
from runtime.registry.progress import silent
from runtime.registry.pull import fetch_blobs as fetch_blobs
from runtime.registry.pull import locate
from runtime.registry.push import push_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A manifest and the bytes of its config, both verified."""

    manifest: Manifest
    config: bytes


async def read_artifact(reference: str, config: RegistryConfig | None = None) -> Artifact:
    """Fetch what `reference` names; of an index, the manifest for this host.

    Raises ImageNotFound, RegistryError and ImageError.
    """
    wanted = Reference.parse(reference)
    async with RegistryClient(config) as client:
        found = await locate(client, wanted, silent)
        repository, document = found.repositories[0], found.document
        if document.is_index:
            child = choose(document.index(), host_platform())
            document = await repository.manifest(child.digest, expected=child)
        manifest = document.manifest()
        async with repository.blob(manifest.config.digest) as response:
            content = await read_bounded(response, MAX_DOCUMENT)
    if digest_of(content) != manifest.config.digest:
        raise ImageError(f"the config of {wanted.familiar()} is not {manifest.config.digest}")
    return Artifact(manifest=manifest, config=content)


async def push_artifact(
    reference: str,
    *,
    config_type: str,
    content: bytes,
    layers: Sequence[Descriptor],
    store: ImageStore,
    lease: Lease,
    config: RegistryConfig | None = None,
) -> Descriptor:
    """Push a manifest of `content` and of blobs that are in the store, under a name."""
    manifest = Manifest(
        config=store.blobs.put(content, config_type, lease),
        layers=tuple(layers),
        artifact_type=config_type,
    )
    descriptor = store.blobs.put(manifest.to_bytes(), MANIFEST, lease)
    await push_document(reference, descriptor.digest, store=store, config=config)
    return descriptor
