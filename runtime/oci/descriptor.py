"""Descriptors: a pointer to content by media type, digest and size.

Source: OCI image-spec descriptor.md and media-types.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from runtime.errors import ImageError
from runtime.oci.digest import check_digest
from runtime.oci.documents import mapping, number, remaining, text, text_mapping, texts

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEXES = frozenset({INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})
LAYERS = frozenset({LAYER, LAYER_GZIP, LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP})

REFERENCE_NAME = "org.opencontainers.image.ref.name"
"""Annotation that gives a manifest its name in an image layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What an image runs on: GOOS and GOARCH values, and the CPU's variant (`v8`)."""

    os: str
    architecture: str
    variant: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            os=text(document, "os", "platform"),
            architecture=text(document, "architecture", "platform"),
            variant=text(document, "variant", "platform"),
            extra=remaining(document, frozenset({"os", "architecture", "variant"})),
        )

    def document(self) -> dict[str, Any]:
        document = {**self.extra, "os": self.os, "architecture": self.architecture}
        if self.variant:
            document["variant"] = self.variant
        return document

    def __str__(self) -> str:
        parts = (self.os, self.architecture, self.variant)
        return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A pointer to a blob; `size` in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a descriptor; raises ImageError where the digest or the size is not one."""
        size = number(document, "size", "descriptor", -1)
        if size < 0:
            raise ImageError(f"descriptor: size {document.get('size')!r} is not a size")
        media_type = text(document, "mediaType", "descriptor")
        if not media_type:
            raise ImageError("descriptor: mediaType is missing")
        platform = mapping(document, "platform", "descriptor")
        return cls(
            media_type=media_type,
            digest=check_digest(text(document, "digest", "descriptor")),
            size=size,
            annotations=text_mapping(document, "annotations", "descriptor"),
            platform=Platform.from_document(platform) if platform else None,
            artifact_type=text(document, "artifactType", "descriptor"),
            urls=texts(document, "urls", "descriptor") or (),
            extra=remaining(document, _KNOWN),
        )

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            **self.extra,
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform is not None:
            document["platform"] = self.platform.document()
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.urls:
            document["urls"] = list(self.urls)
        return document


_KNOWN = frozenset(
    {"mediaType", "digest", "size", "annotations", "platform", "artifactType", "urls"}
)
