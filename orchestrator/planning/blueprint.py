"""A container's blueprint: everything of the project that decides what the container is.

It is stored with the container, and comparing it with the blueprint of today tells what
changed, field by field. A bare hash could tell only that something did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.planning.observed import Spec

VERSION = 1


def image_reference(project: str, service: Mapping[str, Any]) -> str:
    """The reference that a service runs: its `image`, or the name that its build gets."""
    return str(service.get("image") or f"{project}-{service['name']}")


def mounted_images(project: str, services: Mapping[str, Any], name: str) -> dict[str, str]:
    """The images that the canonical service mounts: {target: reference}. A source that names a
    service means that one's image."""
    return {
        target: image_reference(project, {"name": source, **services[source]})
        if source in services
        else source
        for target, source in mounted_references(services[name]).items()
    }


def blueprints(canonical: Mapping[str, Any], images: Mapping[str, str]) -> dict[str, Spec]:
    """The blueprint of every active service of a canonical project; `images` maps references to
    the ids of what is there.

    Of configs and secrets it holds the digest, of mounted images the id (None: not there yet),
    and of binds the digest where it is known; the content itself stays out, so that no secret is
    printed.
    """
    services = canonical["services"]
    return {
        name: _blueprint(
            canonical,
            {"name": name, **service},
            mounted_images(canonical["name"], services, name),
            images,
        )
        for name, service in services.items()
    }


def _blueprint(
    canonical: Mapping[str, Any],
    service: Mapping[str, Any],
    mounted: Mapping[str, str],
    images: Mapping[str, str],
) -> Spec:
    def definition(kind: str, key: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = (canonical.get(kind) or {}).get(key) or {}
        return found

    def real_name(kind: str, key: str) -> str:
        return str(definition(kind, key).get("name") or key)

    volumes = [
        mount["source"]
        for mount in service.get("volumes") or ()
        if mount.get("type") == "volume" and mount.get("source")
    ]
    contents = {
        f"{kind}.{use['source']}": definition(kind, use["source"]).get("digest")
        for kind in ("configs", "secrets")
        for use in service.get(kind) or ()
    }
    contents |= {image_content(target): images.get(name) for target, name in mounted.items()}
    mounts, bound = _without_digests(service.get("volumes") or ())
    if mounted:
        mounts = [
            {**mount, "source": mounted[mount["target"]]} if mount["type"] == "image" else mount
            for mount in mounts
        ]
    return {
        "version": VERSION,
        "service": {**service, "volumes": mounts} if bound or mounted else dict(service),
        "networks": {key: real_name("networks", key) for key in service.get("networks") or {}},
        "volumes": {key: real_name("volumes", key) for key in volumes},
        "contents": {**contents, **bound},
    }


def mounted_references(service: Mapping[str, Any]) -> dict[str, str]:
    """The images that the service of a blueprint mounts: {target: reference}."""
    return {
        str(mount["target"]): str(mount["source"])
        for mount in service.get("volumes") or ()
        if mount.get("type") == "image"
    }


def mounted_ids(spec: Spec) -> dict[str, str]:
    """The ids of the images that a container of this blueprint mounts, where they are known:
    {target: id}."""
    contents = spec.get("contents") or {}
    return {
        target: id
        for target in mounted_references(spec["service"])
        if (id := contents.get(image_content(target)))
    }


def image_content(target: str) -> str:
    """The key among a blueprint's contents of the image that is mounted at `target`."""
    return f"image {target}"


def _without_digests(mounts: Iterable[Spec]) -> tuple[list[Spec], dict[str, str]]:
    """Mounts as a person wrote them, and what their sources hold, by where they are mounted."""
    plain: list[Spec] = []
    digests: dict[str, str] = {}
    for mount in mounts:
        options = dict(mount.get("bind") or {})
        digest = options.pop("digest", None)
        if digest is None:
            plain.append(mount)
            continue
        digests[f"bind {mount['target']}"] = digest
        rest = {key: value for key, value in mount.items() if key != "bind"}
        plain.append({**rest, "bind": options} if options else rest)
    return plain, digests
