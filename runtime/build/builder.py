"""Builds an image from a Dockerfile: parse, divide into stages, execute those that count."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from runtime.build.aside import Aside
from runtime.build.bases import Bases, FindImage
from runtime.build.cache import StepCache
from runtime.build.cache_places import cache_source, cache_target
from runtime.build.caches import Caches
from runtime.build.events import BuildEvent, BuildWarning
from runtime.build.ground import Surroundings
from runtime.build.instructions import Instruction, instruction
from runtime.build.lint import lint
from runtime.build.parser import parse
from runtime.build.request import BuildRequest as BuildRequest
from runtime.build.request import read_dockerfile as read_dockerfile
from runtime.build.scope import PREDEFINED, Scope, platform_args
from runtime.build.stage_builder import StageBuilder, StageResult
from runtime.build.stages import Stage, divide
from runtime.build.steps import StepRunner, Stop
from runtime.errors import BuildError
from runtime.images.bootstrap import source_date_epoch
from runtime.images.leases import Lease
from runtime.images.platforms import parse_platform
from runtime.images.reference import Reference
from runtime.images.store import Image, ImageStore, host_platform
from runtime.oci.image_config import ImageConfig


def build(
    request: BuildRequest,
    *,
    store: ImageStore,
    steps: StepRunner,
    progress: Callable[[BuildEvent], None],
    find_image: FindImage | None = None,
    cancel: threading.Event | None = None,
) -> Image:
    """Build an image, give it its tags and return it.

    `steps` runs RUN instructions; `progress` is called with each event, from several threads
    where stages are built at once; `find_image` gives base images by name and platform, pulling
    them where that is wanted (default: the store's own alone); `cancel`, once set, ends the
    build between two steps. Raises BuildError.
    """
    if request.pull and find_image is None:
        raise BuildError("pull is asked for, but this build has no registry to pull from")
    return _Build(request, store, steps, progress, find_image or store.resolve, cancel).run()


def build_platforms(
    request: BuildRequest,
    platforms: Sequence[str],
    *,
    store: ImageStore,
    steps: StepRunner,
    progress: Callable[[BuildEvent], None],
    find_image: FindImage | None = None,
    cancel: threading.Event | None = None,
) -> Image:
    """Build for each platform, one after the other, into one image; see `build`."""
    if len(platforms) < 2:
        platform = platforms[0] if platforms else request.platform
        return build(
            dataclasses.replace(request, platform=platform),
            store=store,
            steps=steps,
            progress=progress,
            find_image=find_image,
            cancel=cancel,
        )
    images = []
    with store.lease() as lease:
        for platform in dict.fromkeys(platforms):
            image = build(
                dataclasses.replace(request, platform=platform, tags=()),
                store=store,
                steps=steps,
                progress=progress,
                find_image=find_image,
                cancel=cancel,
            )
            store.hold(image, lease)
            images.append(image)
        return store.create_index(images, request.tags, lease=lease)


def check(request: BuildRequest) -> tuple[BuildWarning, ...]:
    """Parse and check a Dockerfile without building it; raises BuildError for errors."""
    parsed = read_dockerfile(request)
    platform = host_platform()
    stages = divide(parsed, request.args, platform_args(platform))
    stages.target(request.target)
    return lint(parsed, platform)


class _Build:
    def __init__(
        self,
        request: BuildRequest,
        store: ImageStore,
        steps: StepRunner,
        progress: Callable[[BuildEvent], None],
        find_image: FindImage,
        cancel: threading.Event | None,
    ) -> None:
        self._request = request
        self._store = store
        self._steps = steps
        self._progress = progress
        self._find_image = find_image
        self._cancel = cancel or threading.Event()
        self._host = host_platform()
        self._platform = parse_platform(request.platform) if request.platform else self._host
        self._results: dict[int, StageResult] = {}
        self._consumed: set[str] = set()
        self._stop = Stop()

    def run(self) -> Image:
        request = self._request
        for tag in request.tags:
            Reference.parse(tag)
        caches = Caches(
            sources=tuple(map(cache_source, request.cache_from)),
            targets=tuple(map(cache_target, request.cache_to)),
            store=self._store,
            registry=request.registry,
            progress=self._progress,
            wait=self._wait,
        )
        parsed = read_dockerfile(request)
        self._escape = parsed.escape
        for warning in lint(parsed, self._platform):
            self._progress(warning)
        automatic = platform_args(self._host, self._platform)
        self._stages = divide(parsed, request.args, automatic)
        self._outer = {**automatic, **self._stages.global_args}
        target = self._stages.target(request.target)
        with self._store.lease() as lease, Aside() as writes, Aside() as removals:
            caches.open(lease)
            self._bases = Bases(
                request,
                store=self._store,
                stages=self._stages,
                results=self._results,
                lease=lease,
                find_image=self._find_image,
                platform=self._platform,
            )
            self._around = self._surroundings(lease, caches, writes, removals)
            self._build_stages(self._stages.reachable(target))
            writes.finish()
            self._tell_unused_args()
            result = self._results[target]
            annotations = caches.export(tuple(self._around.keys), result.layers, lease)
            config = result.config.replace(
                labels={**result.config.labels, **request.labels},
            )
            return self._store.create_image(
                config, result.layers, request.tags, lease=lease, annotations=annotations
            )

    def _surroundings(
        self, lease: Lease, caches: Caches, writes: Aside, removals: Aside
    ) -> Surroundings:
        request = self._request
        return Surroundings(
            store=self._store,
            cache=StepCache(self._store),
            steps=self._steps,
            writes=writes,
            removals=removals,
            lease=lease,
            progress=self._progress,
            open_source=self._bases.open_source,
            dockerfile=self._stages.dockerfile,
            epoch=source_date_epoch(
                {**request.environ, **_only(request.args, "SOURCE_DATE_EPOCH")}
            ),
            extra_hosts=request.extra_hosts,
            shm_size=request.shm_size,
            ulimits=request.ulimits,
            memory=request.memory,
            entitlements=request.entitlements,
            network=request.network,
            secrets=request.secrets,
            ssh=request.ssh,
            wait=self._wait,
            stop=self._stop,
            fetch_step=caches.fetch,
        )

    def _build_stages(self, numbers: Sequence[int]) -> None:
        """Build stages, each after what it needs; independent ones at once."""
        if len(numbers) == 1:
            self._results[numbers[0]] = self._stage(self._stages.stages[numbers[0]])
            return
        futures: dict[int, Future[StageResult]] = {}

        def work(stage: Stage) -> StageResult:
            # Submitted in the order of needs, so what is waited for always has a thread.
            for need in sorted(stage.needs):
                futures[need].result()
            result = self._results[stage.number] = self._stage(stage)
            return result

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="stage") as pool:
            for number in numbers:
                futures[number] = pool.submit(work, self._stages.stages[number])
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            failed = [future for future in done if future.exception() is not None]
            if failed:
                self._stop.set()
                for future in futures.values():
                    future.cancel()
        # A stage that only waited fails with the same error as the one that it waited for.
        for future in failed:
            future.result()

    def _stage(self, stage: Stage) -> StageResult:
        base = self._bases.of(stage)
        scope = Scope(
            env=base.config.env,
            given=self._request.args,
            outer=self._outer,
            inherited=base.args,
            escape=self._escape,
        )
        triggers = [] if stage.base_stage is not None else self._triggers(base.config, stage)
        config = base.config.replace(onbuild=()) if triggers else base.config
        builder = StageBuilder(
            self._around,
            title=stage.title,
            scope=scope,
            base=StageResult(config=config, layers=base.layers, args=base.args),
            count=len(stage.instructions) + len(triggers),
            no_cache=self._request.no_cache or self._is_filtered(stage),
        )
        builder.run(triggers)
        builder.run(stage.instructions)
        self._consumed.update(scope.consumed)
        return builder.result()

    def _is_filtered(self, stage: Stage) -> bool:
        return any(
            self._stages.find(name) == stage.number for name in self._request.no_cache_filter
        )

    def _triggers(self, config: ImageConfig, stage: Stage) -> list[Instruction]:
        """What the base image's ONBUILD kept for images built on it."""
        if not config.onbuild:
            return []
        found = []
        for text in config.onbuild:
            for node in parse(text, name=f"ONBUILD of {stage.base}").nodes:
                found.append(instruction(node, f"ONBUILD of {stage.base}"))
        return found

    def _tell_unused_args(self) -> None:
        known = self._consumed | set(self._stages.global_args) | PREDEFINED
        known |= {"SOURCE_DATE_EPOCH"} | set(platform_args(self._platform))
        unused = sorted(set(self._request.args) - known)
        if unused:
            self._progress(
                BuildWarning(
                    rule="UnusedBuildArg",
                    message=f"no ARG takes the build argument {', '.join(unused)}",
                    line=0,
                )
            )

    def _wait(self, seconds: float) -> None:
        if self._cancel.wait(seconds):
            raise BuildError("the build was canceled")
        if self._stop.is_set():
            raise BuildError("another stage of the build failed")


_AT_ONCE = 4


def _only(values: Mapping[str, str], name: str) -> dict[str, str]:
    return {name: values[name]} if name in values else {}
