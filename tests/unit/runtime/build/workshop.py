"""A store and a builder whose RUN steps are Python functions: no root, no container."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.build.builder import BuildRequest, build
from runtime.build.events import BuildEvent
from runtime.build.steps import RunStep
from runtime.images.merged import MergedTree
from runtime.images.store import Image, ImageStore
from tests.unit.runtime.images.archives import archive


class ScriptedRunner:
    """Runs `script` for each step; without one, writes the command's text to /ran."""

    def __init__(self, script: Callable[[RunStep, Callable[[bytes], None]], int] | None) -> None:
        self.steps: list[RunStep] = []
        self._script = script

    def run(self, step: RunStep, output: Callable[[bytes], None]) -> int:
        self.steps.append(step)
        if self._script is not None:
            return self._script(step, output)
        (step.upper / "ran").write_text(" ".join(step.argv))
        return 0


@dataclass
class Workshop:
    """Builds in a temporary place."""

    place: Path
    script: Callable[[RunStep, Callable[[bytes], None]], int] | None = None
    events: list[BuildEvent] = field(default_factory=list)
    runner: ScriptedRunner = field(init=False)

    def __post_init__(self) -> None:
        self.store = ImageStore(self.place / "store")
        self.context = self.place / "context"
        self.context.mkdir()
        self.runner = ScriptedRunner(self.script)

    def write(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            path = self.context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def base(self, reference: str, *members: bytes) -> Image:
        """An image of one layer with these members."""
        from runtime.images.store import host_platform
        from runtime.oci.image_config import ImageConfig

        with self.store.lease() as lease:
            layer = self.store.add_layer(archive(*members), lease=lease)
            config = ImageConfig(architecture=host_platform().architecture)
            return self.store.create_image(config, (layer,), (reference,), lease=lease)

    def build(self, dockerfile: str, **options: object) -> Image:
        self.events.clear()
        self.runner.steps.clear()
        request = BuildRequest(
            context=self.context,
            dockerfile_inline=dockerfile,
            **options,  # type: ignore[arg-type]  # the tests pass what BuildRequest takes
        )
        return build(request, store=self.store, steps=self.runner, progress=self.events.append)

    def tree(self, image: Image) -> MergedTree:
        return MergedTree(self.store.layer_paths(image))

    def files(self, image: Image) -> dict[str, str]:
        """Every regular file of an image, and where links point."""
        found: dict[str, str] = {}
        with self.tree(image) as tree:
            pending: list[tuple[bytes, ...]] = [()]
            while pending:
                parts = pending.pop()
                for name in tree.names(parts):
                    here = (*parts, name)
                    entry = tree.entry(here)
                    assert entry is not None
                    path = os.fsdecode(b"/".join(here))
                    if entry.is_directory:
                        pending.append(here)
                    elif entry.is_link:
                        found[path] = "-> " + os.fsdecode(entry.readlink())
                    else:
                        content = tree.read(b"/" + b"/".join(here))
                        assert content is not None
                        found[path] = content.decode(errors="replace")
        return found

    def status(self, image: Image, path: str) -> os.stat_result:
        with self.tree(image) as tree:
            found = tree.find(os.fsencode(path), follow=False)
            assert found is not None, path
            return found.status
