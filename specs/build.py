"""`build` of a service: how its image is made. Source: Compose Build Specification."""

# ruff: noqa: RUF012  # pydantic copies a field's default for every instance

from __future__ import annotations

from typing import Any

from pydantic import field_validator, model_validator

from specs.mounts import FileReference
from specs.values import (
    Bytes,
    Flag,
    Hosts,
    Integer,
    Model,
    OptionalTextMap,
    Text,
    TextMap,
    Texts,
)


class Ulimit(Model):
    """A resource limit: either `single`, or `soft` and `hard`."""

    single: Integer = 0
    soft: Integer = 0
    hard: Integer = 0

    @model_validator(mode="before")
    @classmethod
    def _one_number(cls, value: Any) -> Any:
        return {"single": value} if isinstance(value, int | str) else value


class Build(Model):
    """`context` is an absolute path, or an address that a builder fetches.

    `ssh` holds agent sockets or keys by id (None: the default agent).
    """

    context: str = ""
    dockerfile: str = ""
    dockerfile_inline: str = ""
    entitlements: tuple[str, ...] = ()
    args: OptionalTextMap = {}
    provenance: Text = ""
    sbom: Text = ""
    ssh: dict[str, str | None] = {}
    labels: TextMap = {}
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    no_cache: Flag = False
    no_cache_filter: Texts = ()
    additional_contexts: TextMap = {}
    pull: Flag = False
    extra_hosts: Hosts = {}
    isolation: str = ""
    network: str = ""
    target: str = ""
    secrets: tuple[FileReference, ...] = ()
    shm_size: Bytes = 0
    tags: tuple[str, ...] = ()
    ulimits: dict[str, Ulimit] = {}
    platforms: tuple[str, ...] = ()
    privileged: Flag = False

    @field_validator("provenance", "sbom", mode="before")
    @classmethod
    def _boolean_as_text(cls, value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else value
