"""The caches that one build reads and writes beside its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.build.cache import StepCache
from runtime.build.cache_places import CachePlace
from runtime.build.cache_transfer import export_cache, import_cache
from runtime.build.events import BuildEvent, BuildWarning
from runtime.errors import BuildError, RuntimeFault
from runtime.images.layers import Layer
from runtime.images.leases import Lease
from runtime.images.store import ImageStore
from runtime.oci.descriptor import Descriptor

if TYPE_CHECKING:
    from runtime.build.cache_registry import RegistryCache
    from runtime.registry.endpoints import RegistryConfig


class Caches:
    """Reading is a favour: a cache that cannot be read is a warning. Writing was asked for:
    one that cannot be written is a BuildError, unless the place is lenient."""

    def __init__(
        self,
        *,
        sources: Sequence[CachePlace],
        targets: Sequence[CachePlace],
        store: ImageStore,
        registry: RegistryConfig | None,
        progress: Callable[[BuildEvent], None],
        wait: Callable[[float], None],
    ) -> None:
        self._sources = sources
        self._targets = targets
        self._store = store
        self._registry = registry
        self._progress = progress
        self._wait = wait
        self._remote: list[RegistryCache] = []

    def open(self, lease: Lease) -> None:
        """Read directories whole, and of registries the list of steps."""
        for source in self._sources:
            if source.kind == "local":
                import_cache(self._store, Path(source.place), lease)
                continue
            # Imported where asked for: an HTTP client takes longer than a build from the cache.
            from runtime.build.cache_registry import RegistryCache

            try:
                self._remote.append(
                    RegistryCache(
                        source.place,
                        store=self._store,
                        lease=lease,
                        config=self._registry,
                        wait=self._wait,
                    )
                )
            except BuildError:
                raise  # the build is to end
            except RuntimeFault as exc:
                self._warn("CacheImport", source.place, exc)

    def fetch(self, key: str) -> bool:
        """Take a step's result over from the first registry that has it."""
        for cache in self._remote:
            try:
                if cache.take(key):
                    return True
            except BuildError:
                raise  # the build is to end
            except RuntimeFault as exc:
                self._warn("CacheImport", cache.reference, exc)
        return False

    def export(self, keys: Sequence[str], layers: Sequence[Layer], lease: Lease) -> dict[str, str]:
        """Write the results of the steps `keys`; the annotations that the image is to have."""
        annotations: dict[str, str] = {}
        for target in self._targets:
            chosen = keys if target.whole else self._of(keys, layers)
            if target.kind == "local":
                export_cache(self._store, chosen, Path(target.place))
                continue
            from runtime.build.cache_registry import export_to_registry, inline_annotation

            if target.kind == "inline":
                annotations |= inline_annotation(self._store, keys, layers)
                continue
            try:
                export_to_registry(
                    self._store, chosen, target.place, lease=lease, config=self._registry
                )
            except RuntimeFault as exc:
                if not target.lenient:
                    raise BuildError(
                        f"cannot write the build cache {target.place}", hint=exc.hint
                    ) from exc
                self._warn("CacheExport", target.place, exc)
        return annotations

    def _of(self, keys: Sequence[str], layers: Sequence[Layer]) -> tuple[str, ...]:
        """The keys of the steps that made these layers."""
        cache = StepCache(self._store)
        wanted = {layer.descriptor.digest for layer in layers}
        return tuple(
            key
            for key in keys
            if (document := cache.document(key)) is not None
            and Descriptor.from_document(document["descriptor"]).digest in wanted
        )

    def _warn(self, rule: str, place: str, error: RuntimeFault) -> None:
        cause = f": {error.__cause__}" if error.__cause__ is not None else ""
        message = f"the build cache {place}: {error}{cause}"
        self._progress(BuildWarning(rule=rule, message=message, line=0))
