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


def blueprints(canonical: Mapping[str, Any]) -> dict[str, Spec]:
    """The blueprint of every active service of a canonical project.

    Of configs and secrets it holds the digest, and of binds where it is known; the content itself
    stays out, so that no secret is printed.
    """
    return {
        name: _blueprint(canonical, {"name": name, **service})
        for name, service in canonical["services"].items()
    }


def _blueprint(canonical: Mapping[str, Any], service: Mapping[str, Any]) -> Spec:
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
    mounts, bound = _without_digests(service.get("volumes") or ())
    return {
        "version": VERSION,
        "service": {**service, "volumes": mounts} if bound else dict(service),
        "networks": {key: real_name("networks", key) for key in service.get("networks") or {}},
        "volumes": {key: real_name("volumes", key) for key in volumes},
        "contents": {**contents, **bound},
    }


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
