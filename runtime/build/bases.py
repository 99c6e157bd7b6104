"""What stages are built on and copy from: images, other stages, contexts."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runtime.build.instructions import Run
from runtime.build.request import BuildRequest, context_rules, ignore_rules, named_context
from runtime.build.sources import SourceTree
from runtime.build.stage_builder import StageResult, without_layers
from runtime.build.stages import SCRATCH, Stage, Stages
from runtime.errors import BuildError, ImageError, ImageNotFound
from runtime.images.layouts import LayoutPlace, take_image
from runtime.images.leases import Lease
from runtime.images.platforms import host_platform, parse_platform, runs_here
from runtime.images.store import Image, ImageStore
from runtime.oci.descriptor import Platform
from runtime.oci.image_config import ImageConfig

FindImage = Callable[[str, Platform], Image]

_EMPTY_CREATED = "1970-01-01T00:00:00Z"


class Bases:
    """Finds them for one build for `platform`; `results` are the stages that are built so far.

    Images are kept by `lease`, so that nobody removes them while the build stands on them.
    """

    def __init__(
        self,
        request: BuildRequest,
        *,
        store: ImageStore,
        stages: Stages,
        results: Mapping[int, StageResult],
        lease: Lease,
        find_image: FindImage,
        platform: Platform,
    ) -> None:
        self._request = request
        self._store = store
        self._stages = stages
        self._results = results
        self._lease = lease
        self._find_image = find_image
        self._platform = platform

    def of(self, stage: Stage) -> StageResult:
        """What a stage begins with; raises BuildError."""
        platform = self._stage_platform(stage)
        if stage.base_stage is not None:
            return self._results[stage.base_stage]
        if stage.base.lower() == SCRATCH:
            config = ImageConfig(
                architecture=platform.architecture,
                variant=platform.variant,
                os=platform.os,
                created=_EMPTY_CREATED,
            )
            return StageResult(config=config, layers=(), args={})
        named = self._named(stage.base, stage.line)
        if isinstance(named, Path):
            raise BuildError(
                f"the named context {stage.base!r} is a directory: FROM needs an image",
                dockerfile=self._stages.dockerfile,
                line=stage.line,
                hint=f"copy from it: COPY --from={stage.base}",
            )
        name = named or stage.base
        image = self._image(name, stage.line, platform)
        if image.config.platform.architecture != platform.architecture:
            raise self._error(
                f"the image {name} is for {image.config.platform}, not for {platform}",
                stage.line,
                f"fetch it: bay pull --platform {platform} {name}",
            )
        layers = self._store.image_layers(image)
        return StageResult(config=without_layers(image.config), layers=layers, args={})

    @contextlib.contextmanager
    def open_source(self, name: str | None, line: int) -> Iterator[SourceTree]:
        """The tree that `--from` names (None: the build context), for the line that asks."""
        if name is None:
            with SourceTree(
                (self._request.context,), keep_owner=False, rules=context_rules(self._request)
            ) as source:
                yield source
            return
        named = self._named(name, line)
        if isinstance(named, Path):
            with SourceTree((named,), keep_owner=False, rules=ignore_rules(named)) as source:
                yield source
            return
        number = self._stages.find(name) if named is None else None
        if number is not None and number in self._results:
            layers = self._results[number].layers
        elif name.lower() == SCRATCH:
            raise BuildError(
                "there is nothing to copy from scratch",
                dockerfile=self._stages.dockerfile,
                line=line,
            )
        else:
            layers = self._store.image_layers(self._image(named or name, line, self._platform))
        paths = [self._store.layers.path(layer.chain_id) for layer in layers]
        with SourceTree(
            paths, keep_owner=True, identity=layers[-1].chain_id if layers else ""
        ) as source:
            yield source

    def _stage_platform(self, stage: Stage) -> Platform:
        """What a stage is for; raises BuildError where its commands cannot run here."""
        platform = self._platform
        if stage.platform is not None:
            try:
                platform = parse_platform(stage.platform)
            except ImageError as exc:
                raise self._error(str(exc), stage.line, exc.hint) from None
        if any(isinstance(step, Run) for step in stage.instructions) and not runs_here(platform):
            raise self._error(
                f"cannot build for {platform} on {host_platform()}: "
                "RUN needs its programs to run here",
                stage.line,
                "register an interpreter for it: apt-get install qemu-user-static binfmt-support",
            )
        return platform

    def _error(self, message: str, line: int, hint: str | None = None) -> BuildError:
        return BuildError(message, dockerfile=self._stages.dockerfile, line=line, hint=hint)

    def _image(self, name: str | LayoutPlace, line: int, platform: Platform) -> Image:
        try:
            if isinstance(name, LayoutPlace):
                return take_image(self._store, name, platform, lease=self._lease)
            image = self._find_image(name, platform)
            # Nobody may remove it while the build stands on it.
            self._store.hold(image, self._lease)
            return image
        except ImageNotFound as exc:
            hint = self._stage_hint(str(name)) or exc.hint
            if hint is None and str(name).partition(":")[0] in ("debian", "ubuntu"):
                hint = f"make it: bay image bootstrap {name}"
            raise BuildError(
                f"there is no image {name}",
                dockerfile=self._stages.dockerfile,
                line=line,
                hint=hint,
            ) from exc
        except ImageError as exc:
            raise BuildError(
                str(exc), dockerfile=self._stages.dockerfile, line=line, hint=exc.hint
            ) from exc

    def _stage_hint(self, name: str) -> str | None:
        """What to say where a name that is no image looks like a stage's."""
        names = [stage.name for stage in self._stages.stages if stage.name is not None]
        if name.lower() in names:
            return f"the stage {name} stands below: a stage can only take from those above it"
        close = difflib.get_close_matches(name.lower(), names, n=1)
        return f"did you mean the stage {close[0]}?" if close else None

    def _named(self, name: str, line: int) -> Path | str | LayoutPlace | None:
        try:
            return named_context(self._request, name)
        except (ValueError, ImageError) as exc:
            raise BuildError(str(exc), dockerfile=self._stages.dockerfile, line=line) from None
