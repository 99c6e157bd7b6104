"""Executes the instructions of one stage, one method each.

Instructions that change files make a layer each, found in the cache where possible; the rest
change the image's config. Source: BuildKit reference.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runtime.build import instructions as ins
from runtime.build.cache import CachedStep, StepCache
from runtime.build.configure import Configurator
from runtime.build.copy_step import plan_copy
from runtime.build.copying import CopyRefused
from runtime.build.events import BuildWarning, StepCached, StepDone, StepFailed, StepStarted
from runtime.build.ground import Ground, LayerPlan, Surroundings
from runtime.build.run_step import foresee, plan_run
from runtime.build.scope import Scope
from runtime.build.steps import ForeseenRun
from runtime.errors import ImageError, RuntimeFault
from runtime.images.layers import Layer
from runtime.images.merged import split
from runtime.oci.image_config import HistoryEntry, ImageConfig

_BY = "bayplan"
_OF_PATHS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR})


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """A built stage: its config (without diff IDs), its layers, and its ARGs."""

    config: ImageConfig
    layers: tuple[Layer, ...]
    args: Mapping[str, str]

    @property
    def chain(self) -> str:
        """The chain ID of the file system, "" for an empty one."""
        return self.layers[-1].chain_id if self.layers else ""


class StageBuilder:
    """Builds on `base`, instruction by instruction."""

    def __init__(
        self,
        around: Surroundings,
        *,
        title: str,
        scope: Scope,
        base: StageResult,
        count: int,
        no_cache: bool,
    ) -> None:
        self._around = around
        self._title = title
        self._scope = scope
        self._layers = list(base.layers)
        self._configurator = Configurator(base.config, scope)
        self._count = count
        self._no_cache = no_cache
        self._number = 0
        self._line = 0
        self._following: ins.Instruction | None = None
        self._foreseen: ForeseenRun | None = None

    def run(self, instructions: Sequence[ins.Instruction]) -> None:
        """Execute instructions; raises BuildError with the line of the one that fails."""
        try:
            for instruction, following in itertools.pairwise((*instructions, None)):
                assert instruction is not None, "None comes last"
                self._following = following
                self._around.wait(0)
                self._number += 1
                self._line = instruction.line
                self._attempt(instruction)
        finally:
            self._forget(self._foreseen)

    def _attempt(self, instruction: ins.Instruction) -> None:
        try:
            self._execute(instruction)
        except (CopyRefused, ImageError, ValueError) as exc:
            raise self._ground().error(str(exc)) from exc
        except OSError as exc:
            if exc.errno not in _OF_PATHS:
                raise  # the machine's, not the Dockerfile's
            raise self._ground().error((exc.strerror or "").lower()) from None
        for name in self._scope.take_unset():
            message = f"the variable {name} is not set here"
            self._around.progress(
                BuildWarning(rule="UndefinedVar", message=message, line=self._line)
            )

    def result(self) -> StageResult:
        return StageResult(
            config=self._config, layers=tuple(self._layers), args=dict(self._scope.args)
        )

    def _execute(self, instruction: ins.Instruction) -> None:
        match instruction:
            case ins.Run():
                self._run(instruction)
            case ins.Copy():
                self._copy(instruction)
            case ins.Workdir():
                self._workdir(instruction)
            case _:
                if not self._configurator.apply(instruction):
                    name = type(instruction).__name__.upper()
                    raise self._ground().error(f"{name} cannot stand here")
                self._remember(instruction.original, empty=True)

    @property
    def _config(self) -> ImageConfig:
        return self._configurator.config

    # Instructions that make a layer

    def _workdir(self, instruction: ins.Workdir) -> None:
        ground = self._ground()
        path = self._configurator.working_directory(instruction)
        with ground.merged() as tree:
            found = tree.find(os.fsencode(path))
        if found is not None:
            self._remember(instruction.original, empty=True)
            return

        def make(upper: Path) -> None:
            with ground.merged() as lower, ground.upper(upper, lower) as tree:
                tree.directory(split(os.fsencode(path)))
                tree.restore_times()

        fields = {"do": "workdir", "path": path}
        plan = LayerPlan(fields=fields, make=make, by=instruction.original)
        self._layer(instruction, lambda _: plan)

    def _run(self, instruction: ins.Run) -> None:
        foreseen, self._foreseen = self._foreseen, None
        try:
            self._layer(instruction, lambda ground: plan_run(instruction, ground, foreseen))
        finally:
            self._forget(foreseen)

    def _copy(self, instruction: ins.Copy) -> None:
        self._layer(instruction, lambda ground: plan_copy(instruction, ground))

    # Layers

    def _layer(self, instruction: ins.Instruction, planned: Callable[[Ground], LayerPlan]) -> None:
        """Find the step's layer in the cache, or make it in an upper directory."""
        around = self._around
        step = self._step_id()
        name = f"[{self._title} {self._number}/{self._count}] {instruction.original}"
        around.progress(StepStarted(step=step, name=name, line=instruction.line, stage=self._title))
        started = time.monotonic()
        try:
            plan = planned(self._ground())
            known, was_there = self._found_or_made(plan)
        except (RuntimeFault, CopyRefused, ValueError) as exc:
            seconds = time.monotonic() - started
            around.progress(StepFailed(step=step, seconds=seconds, message=str(exc)))
            raise
        if was_there:
            around.progress(StepCached(step=step))
        else:
            around.progress(StepDone(step=step, seconds=time.monotonic() - started))
        self._layers.append(known.layer)
        self._configurator.config = self._config.replace(created=known.created)
        self._remember(plan.by, empty=False)

    def _found_or_made(self, plan: LayerPlan) -> tuple[CachedStep, bool]:
        around = self._around
        parents = tuple(layer.chain_id for layer in self._layers)
        below = "" if plan.alone or not parents else parents[-1]
        key = StepCache.key({**plan.fields, "below": below, "epoch": around.epoch})
        around.keys[key] = None
        with contextlib.ExitStack() as held:
            if not self._no_cache:
                held.enter_context(around.cache.working_on(key, around.wait))
                known = around.cache.find(key, around.lease, parents, lambda: around.wait(0))
                if known is None and around.fetch_step(key):
                    known = around.cache.find(key, around.lease, parents, lambda: around.wait(0))
                if known is not None:
                    return known, True
            made, store = self._made(plan)
            others = held.pop_all()

        def keep() -> None:
            with others:
                store()
                around.cache.put(key, made)

        around.writes.do(keep)
        return made, False

    def _made(self, plan: LayerPlan) -> tuple[CachedStep, Callable[[], None]]:
        """The step's result, and what is left to do for its blob."""
        around, ground = self._around, self._ground()
        if plan.foreseen is not None:
            upper = plan.foreseen.upper
        else:
            upper = around.lease.path("upper")
            upper.mkdir(mode=0o755)
        with ground.merged() as lower, ground.upper(upper, lower) as tree:
            tree.root_like_lower()
        if plan.foreseen is not None:
            plan.foreseen.ready.begin()
        following = self._foreseen = foresee(self._following, ground)
        plan.make(upper)
        committed = around.store.commit_directory(
            upper,
            lease=around.lease,
            parents=tuple(layer.chain_id for layer in self._layers),
            epoch=around.epoch,
        )
        layer = committed.layer
        if following is not None:
            following.put_on(around.store.layers.path(layer.chain_id))
        return CachedStep(layer=layer, created=timestamp(around.epoch)), committed.store

    def _forget(self, foreseen: ForeseenRun | None) -> None:
        """Have what was made ready for a RUN taken away, be it used or not."""
        if foreseen is not None:
            self._around.removals.do(foreseen.ready.close)

    def _ground(self) -> Ground:
        return Ground(
            around=self._around,
            scope=self._scope,
            config=self._config,
            layers=tuple(self._layers),
            step=self._step_id(),
            line=self._line,
        )

    # Small things

    def _remember(self, by: str, *, empty: bool) -> None:
        entry = HistoryEntry(
            created=self._config.created, created_by=by, comment=_BY, empty_layer=empty
        )
        history = (*self._config.history, entry)
        self._configurator.config = self._config.replace(history=history)

    def _step_id(self) -> str:
        return f"{self._title}/{self._number}"


def timestamp(epoch: int | None) -> str:
    """Now, or the epoch, in RFC 3339."""
    moment = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(epoch, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if epoch is None else "%Y-%m-%dT%H:%M:%SZ")


def without_layers(config: ImageConfig) -> ImageConfig:
    """An image's config to build on."""
    return dataclasses.replace(config, diff_ids=())
