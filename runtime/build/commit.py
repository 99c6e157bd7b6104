"""An image from a container's file system, or from an archive, with `--change`s.

Source: Docker's documentation of `docker commit` and `docker import`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.build.configure import changed
from runtime.build.stage_builder import timestamp
from runtime.errors import BuildError
from runtime.images.flat import import_archive
from runtime.images.reference import Reference
from runtime.images.store import Image, ImageStore, host_platform
from runtime.images.tar_reader import Source
from runtime.oci.image_config import HistoryEntry, ImageConfig


def commit(
    store: ImageStore,
    base: Image,
    upper: Path,
    *,
    references: Sequence[str] = (),
    changes: Sequence[str] = (),
    author: str = "",
    message: str = "",
) -> Image:
    """Make an image of `base` and the writable layer `upper` of a container on it.

    The container must be paused or stopped meanwhile; its layer is only read. `changes` are
    Dockerfile instructions such as `CMD ["x"]`. Raises BuildError for a wrong one.
    """
    for reference in references:
        Reference.parse(reference)
    config = _changed(base.config, changes)
    now = timestamp(None)
    with store.lease() as lease:
        layers = store.image_layers(base)
        parents = tuple(layer.chain_id for layer in layers)
        layer = store.layers.add_copy(upper, parents=parents, lease=lease)
        entry = HistoryEntry(created=now, created_by="commit", author=author, comment=message)
        complete = config.replace(
            created=now, author=author or config.author, history=(*config.history, entry)
        )
        return store.create_image(complete, (*layers, layer), references, lease=lease)


def import_image(
    store: ImageStore,
    source: Source,
    *,
    references: Sequence[str] = (),
    changes: Sequence[str] = (),
    message: str = "",
) -> Image:
    """Make an image of one layer from an archive of a file system."""
    platform = host_platform()
    plain = ImageConfig(
        architecture=platform.architecture, variant=platform.variant, os=platform.os
    )
    return import_archive(
        store,
        source,
        references,
        config=_changed(plain, changes),
        message=message,
        created=timestamp(None),
    )


def _changed(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    try:
        return changed(config, changes)
    except ValueError as exc:
        raise BuildError(str(exc)) from exc
