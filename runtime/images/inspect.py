"""An image as one document, in the words of `docker image inspect`.

Source: Docker Engine API, "ImageInspect".
"""

from __future__ import annotations

from typing import Any

from runtime.images.reference import Reference
from runtime.images.store import Image


def inspect(image: Image) -> dict[str, Any]:
    """The document; names of fields are Docker's."""
    config = image.config
    names = [Reference.parse(name) for name in image.references]
    repositories = dict.fromkeys(
        Reference(domain=name.domain, path=name.path, digest=image.digest).familiar()
        for name in names
    )
    inner: dict[str, Any] = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports} or None,
        "Env": list(config.env),
        "Cmd": None if config.cmd is None else list(config.cmd),
        "Entrypoint": None if config.entrypoint is None else list(config.entrypoint),
        "Volumes": {path: {} for path in config.volumes} or None,
        "WorkingDir": config.working_dir,
        "Labels": dict(config.labels) or None,
        "StopSignal": config.stop_signal,
        "Shell": None if config.shell is None else list(config.shell),
        "OnBuild": list(config.onbuild) or None,
        "Healthcheck": config.healthcheck.document() if config.healthcheck else None,
    }
    return {
        "Id": image.id,
        "RepoTags": [name.familiar() for name in names if name.digest is None],
        "RepoDigests": list(repositories),
        "Created": image.created,
        "Author": config.author,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": image.size,
        "Config": inner,
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Descriptor": {
            "mediaType": image.manifest.media_type,
            "digest": image.digest,
        },
    }
