"""Manifests and indexes.

Source: OCI image-spec manifest.md and image-index.md. Docker's own media types of schema 2
are read as the same thing. A document that could be taken for both a manifest and an index
is refused (CVE-2021-41190).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from runtime.errors import ImageError
from runtime.oci.descriptor import INDEX, INDEXES, MANIFEST, MANIFESTS, Descriptor
from runtime.oci.documents import (
    mapping,
    number,
    objects,
    parse_object,
    remaining,
    serialise,
    text,
    text_mapping,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform: its config and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = MANIFEST
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        _check_kind(document, "manifest", MANIFESTS, foreign="manifests")
        config = mapping(document, "config", "manifest")
        if not config:
            raise ImageError("manifest: config is missing")
        subject = mapping(document, "subject", "manifest")
        return cls(
            config=Descriptor.from_document(config),
            layers=tuple(map(Descriptor.from_document, objects(document, "layers", "manifest"))),
            media_type=text(document, "mediaType", "manifest", MANIFEST),
            artifact_type=text(document, "artifactType", "manifest"),
            subject=Descriptor.from_document(subject) if subject else None,
            annotations=text_mapping(document, "annotations", "manifest"),
            extra=remaining(document, _MANIFEST_FIELDS),
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        return cls.from_document(parse_object(content, "manifest"))

    def to_bytes(self) -> bytes:
        document: dict[str, Any] = {
            **self.extra,
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.document(),
            "layers": [layer.document() for layer in self.layers],
        }
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.subject is not None:
            document["subject"] = self.subject.document()
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return serialise(document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A list of manifests: an image for several platforms, or the content of a layout."""

    manifests: tuple[Descriptor, ...]
    media_type: str = INDEX
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        _check_kind(document, "index", INDEXES, foreign="layers")
        if document.get("config"):
            raise ImageError("index: has a config, as only a manifest may")
        subject = mapping(document, "subject", "index")
        return cls(
            manifests=tuple(map(Descriptor.from_document, objects(document, "manifests", "index"))),
            media_type=text(document, "mediaType", "index", INDEX),
            artifact_type=text(document, "artifactType", "index"),
            subject=Descriptor.from_document(subject) if subject else None,
            annotations=text_mapping(document, "annotations", "index"),
            extra=remaining(document, _INDEX_FIELDS),
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        return cls.from_document(parse_object(content, "index"))

    def to_bytes(self) -> bytes:
        document: dict[str, Any] = {
            **self.extra,
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.document() for manifest in self.manifests],
        }
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.subject is not None:
            document["subject"] = self.subject.document()
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return serialise(document)


def _check_kind(
    document: Mapping[str, Any], what: str, media_types: frozenset[str], *, foreign: str
) -> None:
    version = number(document, "schemaVersion", what)
    if version != 2:
        raise ImageError(f"{what}: schema version {version} is not supported")
    media_type = text(document, "mediaType", what)
    if media_type and media_type not in media_types:
        raise ImageError(f"{what}: unexpected media type {media_type!r}")
    if document.get(foreign):
        raise ImageError(f"{what}: has {foreign}: it could be read as another kind of document")


_MANIFEST_FIELDS = frozenset(
    {"schemaVersion", "mediaType", "config", "layers", "artifactType", "subject", "annotations"}
)
_INDEX_FIELDS = frozenset(
    {"schemaVersion", "mediaType", "manifests", "artifactType", "subject", "annotations"}
)
