"""What to build, and the files that say so: the Dockerfile and the ignore rules."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.build.ignore import IgnoreRules, parse_ignore
from runtime.build.parser import Dockerfile, parse
from runtime.build.steps import BuildSecret, Network
from runtime.container.config import Ulimit
from runtime.errors import BuildError
from runtime.images.layouts import LayoutPlace
from runtime.linux.files import read_in_root

if TYPE_CHECKING:
    from runtime.registry.endpoints import RegistryConfig

_MAX_DOCKERFILE = 4 * 1024 * 1024
_IMAGE_CONTEXT = "docker-image://"
_LAYOUT_CONTEXT = "oci-layout://"
HOST_NETWORK = "network.host"
INSECURE = "security.insecure"
ENTITLEMENTS = (HOST_NETWORK, INSECURE)
"""BuildKit's words: `RUN --network=host`, and `RUN --security=insecure`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build.

    `context` is a directory; `dockerfile` a path below it (default "Dockerfile") or, absolute,
    anywhere; `dockerfile_inline` the text itself; `args` the build arguments; `target` a
    stage's name; `platform` what the image is for, such as "linux/arm64" (default: this
    machine); `tags` the names of the result; `contexts` are named contexts: a directory,
    `docker-image://REFERENCE` or `oci-layout://PATH[:TAG][@DIGEST]`, by the name that FROM and
    --from use; `no_cache_filter` are
    stages that are built anew; `cache_from` and `cache_to` as in `cache_places`, and `registry`
    is how registries are spoken to for them; `network` is what steps without one of their own
    run on (`steps.Network`); `extra_hosts` pairs of name and address;
    `shm_size` in bytes; `secrets` and `ssh` (agents' sockets) are by ID, for
    `RUN --mount`; `memory` bounds each command, in bytes; `entitlements` are what commands may
    have beyond the usual (`ENTITLEMENTS`); `environ` is where SOURCE_DATE_EPOCH is looked up.
    """

    context: Path
    dockerfile: str | None = None
    dockerfile_inline: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    platform: str | None = None
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    registry: RegistryConfig | None = None
    pull: bool = False
    network: Network = "default"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    secrets: Mapping[str, BuildSecret] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None
    entitlements: frozenset[str] = frozenset()
    environ: Mapping[str, str] = field(default_factory=dict)


def read_dockerfile(request: BuildRequest) -> Dockerfile:
    """Read and parse the request's Dockerfile; raises BuildError."""
    if request.dockerfile_inline is not None:
        return parse(request.dockerfile_inline, name="dockerfile_inline")
    name = request.dockerfile or "Dockerfile"
    try:
        if os.path.isabs(name):
            content = _read_plain(Path(name))
        else:
            root = os.open(request.context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                content = read_in_root(root, name, limit=_MAX_DOCKERFILE)
            finally:
                os.close(root)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise BuildError(f"the build context {request.context} is not a directory") from exc
    except OSError as exc:
        reason = (exc.strerror or "").lower()
        raise BuildError(f"cannot read the Dockerfile {name}: {reason}") from exc
    if content is None:
        raise BuildError(f"there is no Dockerfile {name} in {request.context}")
    try:
        return parse(content.decode("utf-8"), name=name)
    except UnicodeDecodeError as exc:
        raise BuildError(f"{name} is not UTF-8") from exc


def named_context(request: BuildRequest, name: str) -> Path | str | LayoutPlace | None:
    """What a named context stands for: a directory, an image, or an image of a layout; None for
    no such name.

    Raises ValueError for one that is nothing of these, ImageError.
    """
    value = request.contexts.get(name)
    if value is None:
        return None
    if value.startswith(_IMAGE_CONTEXT):
        return value.removeprefix(_IMAGE_CONTEXT)
    if value.startswith(_LAYOUT_CONTEXT):
        return LayoutPlace.parse(value.removeprefix(_LAYOUT_CONTEXT))
    if "://" in value or not os.path.isdir(value):
        raise ValueError(
            f"the named context {name!r} is {value!r}: neither a directory nor an image"
        )
    return Path(value)


def context_rules(request: BuildRequest) -> IgnoreRules:
    """The rules of `<Dockerfile>.dockerignore`, else of `.dockerignore`."""
    name = request.dockerfile or "Dockerfile"
    own = request.dockerfile_inline is None and not os.path.isabs(name)
    return ignore_rules(request.context, *((f"{name}.dockerignore",) if own else ()))


def ignore_rules(context: Path, *before: str) -> IgnoreRules:
    """The rules of the first file that is there: one of `before`, or `.dockerignore`."""
    root = os.open(context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in (*before, ".dockerignore"):
            content = read_in_root(root, name)
            if content is not None:
                return parse_ignore(content.decode("utf-8", "surrogateescape"))
    except (ValueError, OSError) as exc:
        raise BuildError(f"{name}: {exc}") from exc
    finally:
        os.close(root)
    return IgnoreRules()


def _read_plain(path: Path) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_DOCKERFILE:
            raise OSError(0, "not a Dockerfile: no regular file of up to 4 MiB", str(path))
        return file.read()
