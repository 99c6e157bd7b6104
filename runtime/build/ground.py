"""What an instruction stands on: the build around it, and the stage as it is so far."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.build.aside import Aside
from runtime.build.cache import StepCache
from runtime.build.configure import DEFAULT_SHELL
from runtime.build.events import BuildEvent
from runtime.build.scope import Scope
from runtime.build.sources import SourceTree
from runtime.build.steps import BuildSecret, ForeseenRun, Network, StepRunner, Stop
from runtime.container.config import Ulimit
from runtime.errors import BuildError
from runtime.images.layers import Layer
from runtime.images.leases import Lease
from runtime.images.merged import MergedTree
from runtime.images.store import ImageStore
from runtime.images.upper import UpperTree
from runtime.oci.image_config import ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all stages of one build share.

    `open_source` gives the tree that `--from` names (None: the build context), for the line
    that asks; `epoch` is SOURCE_DATE_EPOCH in seconds; `secrets` and `ssh` (agents'
    sockets) are by ID; `keys` collects the cache keys of the steps; `wait` passes the given
    seconds and raises BuildError once the build is to end; `stop` ends the steps that run;
    `fetch_step` takes the result of a step, by its key, over from a cache elsewhere, if it can;
    `memory` (bytes) and `entitlements` as in BuildRequest; `writes` are done before the image is
    made, `removals` before the build ends.
    """

    store: ImageStore
    cache: StepCache
    steps: StepRunner
    writes: Aside
    removals: Aside
    lease: Lease
    progress: Callable[[BuildEvent], None]
    open_source: Callable[[str | None, int], AbstractContextManager[SourceTree]]
    dockerfile: str
    epoch: int | None
    wait: Callable[[float], None]
    stop: Stop
    fetch_step: Callable[[str], bool]
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    memory: int | None = None
    entitlements: frozenset[str] = frozenset()
    network: Network = "default"
    secrets: Mapping[str, BuildSecret] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)
    keys: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """How one layer comes to be.

    `fields` decide the result and are its cache key; `make` writes it into an upper directory;
    `by` is its line in the history; `alone` marks a layer that does not depend on those below;
    a RUN may have been `foreseen`: it is made in the upper directory that was given to it.
    """

    fields: Mapping[str, Any]
    make: Callable[[Path], None]
    by: str
    alone: bool = False
    foreseen: ForeseenRun | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The stage as one instruction finds it."""

    around: Surroundings
    scope: Scope
    config: ImageConfig
    layers: tuple[Layer, ...]
    step: str
    line: int

    def merged(self) -> MergedTree:
        """The stage's file system."""
        return MergedTree(self.layer_paths())

    def layer_paths(self) -> tuple[Path, ...]:
        layers = self.around.store.layers
        return tuple(layers.path(layer.chain_id) for layer in self.layers)

    def upper(self, path: Path, lower: MergedTree) -> UpperTree:
        """Write access to a new layer on top of `lower`."""
        return UpperTree(path, lower, privileged=os.geteuid() == 0, follow_own=True)

    def absolute(self, path: str) -> str:
        """A path inside the image; a relative one starts at the working directory."""
        joined = posixpath.join(self.config.working_dir or "/", path)
        return posixpath.normpath("/" + joined.lstrip("/"))

    def expanded(self, text: str | None) -> str | None:
        return None if text is None else self.scope.expand(text)

    @property
    def shell(self) -> tuple[str, ...]:
        return self.config.shell or DEFAULT_SHELL

    def error(
        self,
        message: str,
        *,
        hint: str | None = None,
        output_tail: str = "",
        exit_code: int | None = None,
    ) -> BuildError:
        """An error at the instruction's line."""
        return BuildError(
            message,
            dockerfile=self.around.dockerfile,
            line=self.line,
            hint=hint,
            output_tail=output_tail,
            exit_code=exit_code,
        )
