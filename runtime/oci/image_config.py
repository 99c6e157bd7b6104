"""The image config: what a container of the image runs, and how the image came to be.

Source: OCI image-spec config.md; `Healthcheck`, `OnBuild` and `Shell` are Docker's
(moby image/spec/v1.2 and `api/types/container.Config`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from runtime.errors import ImageError
from runtime.oci.descriptor import Platform
from runtime.oci.digest import check_digest
from runtime.oci.documents import (
    mapping,
    number,
    objects,
    parse_object,
    remaining,
    serialise,
    text,
    text_mapping,
    texts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHealthcheck:
    """How to probe a container; times in nanoseconds, 0 takes the default.

    `test` is ("NONE",), ("CMD", argument…) or ("CMD-SHELL", command); () inherits.
    """

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        what = "image config: Healthcheck"
        return cls(
            test=texts(document, "Test", what) or (),
            interval=number(document, "Interval", what),
            timeout=number(document, "Timeout", what),
            start_period=number(document, "StartPeriod", what),
            start_interval=number(document, "StartInterval", what),
            retries=number(document, "Retries", what),
        )

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"Test": list(self.test)} if self.test else {}
        for name, value in (
            ("Interval", self.interval),
            ("Timeout", self.timeout),
            ("StartPeriod", self.start_period),
            ("StartInterval", self.start_interval),
            ("Retries", self.retries),
        ):
            if value:
                document[name] = value
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One line of an image's history; `empty_layer` marks a step that changed no file."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        what = "image config: history"
        return cls(
            created=text(document, "created", what),
            created_by=text(document, "created_by", what),
            author=text(document, "author", what),
            comment=text(document, "comment", what),
            empty_layer=document.get("empty_layer") is True,
            extra=remaining(document, _HISTORY_FIELDS),
        )

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = dict(self.extra)
        for name in ("created", "created_by", "author", "comment"):
            if value := getattr(self, name):
                document[name] = value
        if self.empty_layer:
            document["empty_layer"] = True
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image's config.

    `env` are `NAME=value` texts; `cmd` and `entrypoint` None where the image sets none;
    `exposed_ports` as `80/tcp`; `stop_signal` a name or a number as text; `created` is
    RFC 3339. `extra` holds unknown fields of the document, `extra_config` those of its
    inner `config` object.
    """

    architecture: str
    os: str = "linux"
    variant: str = ""
    created: str = ""
    author: str = ""
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    healthcheck: ImageHealthcheck | None = None
    shell: tuple[str, ...] | None = None
    onbuild: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    extra_config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        what = "image config"
        rootfs = mapping(document, "rootfs", what)
        if text(rootfs, "type", what) != "layers":
            raise ImageError("image config: rootfs is not made of layers")
        inner = mapping(document, "config", what)
        healthcheck = mapping(inner, "Healthcheck", what)
        history = objects(document, "history", what)
        diff_ids = texts(rootfs, "diff_ids", what) or ()
        for listed, most, name in (
            (history, _MOST_HISTORY, "lines of history"),
            (diff_ids, _MOST_LAYERS, "layers"),
        ):
            if len(listed) > most:
                raise ImageError(f"image config: {len(listed)} {name} are more than {most}")
        return cls(
            architecture=text(document, "architecture", what),
            os=text(document, "os", what),
            variant=text(document, "variant", what),
            created=text(document, "created", what),
            author=text(document, "author", what),
            env=texts(inner, "Env", what) or (),
            cmd=texts(inner, "Cmd", what),
            entrypoint=texts(inner, "Entrypoint", what),
            user=text(inner, "User", what),
            working_dir=text(inner, "WorkingDir", what),
            exposed_ports=tuple(sorted(mapping(inner, "ExposedPorts", what))),
            volumes=tuple(sorted(mapping(inner, "Volumes", what))),
            labels=text_mapping(inner, "Labels", what),
            stop_signal=text(inner, "StopSignal", what),
            healthcheck=ImageHealthcheck.from_document(healthcheck) if healthcheck else None,
            shell=texts(inner, "Shell", what),
            onbuild=texts(inner, "OnBuild", what) or (),
            diff_ids=tuple(map(check_digest, diff_ids)),
            history=tuple(map(HistoryEntry.from_document, history)),
            extra=remaining(document, _FIELDS),
            extra_config=remaining(inner, _INNER_FIELDS),
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        return cls.from_document(parse_object(content, "image config"))

    def to_bytes(self) -> bytes:
        inner: dict[str, Any] = dict(self.extra_config)
        inner |= {
            name: value
            for name, value in (
                ("User", self.user),
                ("Env", list(self.env)),
                ("WorkingDir", self.working_dir),
                ("Labels", dict(self.labels)),
                ("StopSignal", self.stop_signal),
                ("ExposedPorts", {port: {} for port in self.exposed_ports}),
                ("Volumes", {path: {} for path in self.volumes}),
                ("OnBuild", list(self.onbuild)),
                ("Healthcheck", self.healthcheck.document() if self.healthcheck else None),
            )
            if value
        }
        for name, argv in (
            ("Entrypoint", self.entrypoint),
            ("Cmd", self.cmd),
            ("Shell", self.shell),
        ):
            if argv is not None:
                inner[name] = list(argv)
        document: dict[str, Any] = {
            **self.extra,
            "architecture": self.architecture,
            "os": self.os,
            "config": inner,
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
        }
        for name in ("variant", "created", "author"):
            if value := getattr(self, name):
                document[name] = value
        if self.history:
            document["history"] = [entry.document() for entry in self.history]
        return serialise(document)

    @property
    def platform(self) -> Platform:
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)


# What is looked up stays in memory. overlayfs takes 500 layers.
_MOST_HISTORY = 10_000
_MOST_LAYERS = 1000
_HISTORY_FIELDS = frozenset({"created", "created_by", "author", "comment", "empty_layer"})
_FIELDS = frozenset(
    {"architecture", "os", "variant", "created", "author", "config", "rootfs", "history"}
)
_INNER_FIELDS = frozenset(
    {
        "Env",
        "Cmd",
        "Entrypoint",
        "User",
        "WorkingDir",
        "ExposedPorts",
        "Volumes",
        "Labels",
        "StopSignal",
        "Healthcheck",
        "Shell",
        "OnBuild",
    }
)
