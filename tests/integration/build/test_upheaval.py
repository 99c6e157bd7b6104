"""Builds, removals and collections at once, and processes that are killed at any moment."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.build.builder import BuildRequest, build
from runtime.build.cache import StepCache
from runtime.build.steps import RunStep
from runtime.errors import ImageNotFound
from runtime.images.merged import MergedTree
from runtime.images.store import ImageStore

ROOT = Path(__file__).parents[3]

_WORK = """
import io, random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from runtime.build.builder import BuildRequest, build
from runtime.build.cache import StepCache
from runtime.images.load import load
from runtime.images.save import save
from runtime.images.store import ImageStore

place, rng = Path(sys.argv[1]), random.Random(int(sys.argv[3]))

class Runner:
    def run(self, step, output):
        for number in range(20):
            (step.upper / f"f{number}").write_bytes(rng.randbytes(5000))
        return 0

print("ready", flush=True)
while True:
    store = ImageStore(place / "store")
    tag = f"app:{rng.randrange(3)}"
    build(BuildRequest(context=place, tags=(tag,), no_cache=rng.random() < 0.5,
                       dockerfile_inline=f"FROM scratch\\nRUN a{rng.randrange(3)}\\nRUN b\\n"),
          store=store, steps=Runner(), progress=lambda _: None)
    out = io.BytesIO()
    save(store, (tag,), out.write)
    store.remove(tag)
    StepCache(store).prune(keep=20_000)
    store.collect_garbage()
    load(store, io.BytesIO(out.getvalue()))
"""


class Writer:
    """Writes the command's words into a file."""

    def run(self, step: RunStep, output: Callable[[bytes], None]) -> int:
        (step.upper / "ran").write_text(" ".join(step.argv))
        return 0


def build_one(store: ImageStore, context: Path, text: str, tag: str) -> str:
    request = BuildRequest(context=context, dockerfile_inline=text, tags=(tag,))
    return build(request, store=store, steps=Writer(), progress=lambda _: None).id


@pytest.mark.timeout(120)
def test_a_process_killed_at_any_moment_leaves_a_clean_store(tmp_path: Path) -> None:
    rng = random.Random(11)
    for round_ in range(15):
        with subprocess.Popen(
            [sys.executable, "-c", _WORK, str(tmp_path), str(ROOT), str(round_)],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            try:
                process.wait(timeout=rng.uniform(0.0, 0.3))
            except subprocess.TimeoutExpired:
                process.kill()
            assert process.wait() == -9, "it never ends by itself"
        store = ImageStore(tmp_path / "store")
        assert store.check() == ()
        assert os.listdir(store.root / "ingest") == []
        for image in store.list():
            assert all(path.is_dir() for path in store.layer_paths(image))
    build_one(store, tmp_path, "FROM scratch\nRUN after\n", "after")
    store.prune(everything=True)
    StepCache(store).prune()
    store.collect_garbage()
    assert list(store.blobs.digests()) == []
    assert store.layers.chains() == []


@pytest.mark.timeout(120)
def test_builds_and_collections_do_not_disturb_each_other(tmp_path: Path) -> None:
    root = tmp_path / "store"
    stop = threading.Event()
    errors: list[BaseException] = []
    built: list[str] = []

    def guarded(work: Callable[[ImageStore], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work(ImageStore(root))
            except BaseException as exc:
                errors.append(exc)
                stop.set()

        return run

    def builder(number: int) -> Callable[[ImageStore], None]:
        def work(store: ImageStore) -> None:
            for round_ in range(12):
                text = f"FROM scratch\nRUN base {round_}\nRUN own {number} {round_}\n"
                built.append(build_one(store, tmp_path, text, f"app{number}:{round_}"))
                try:
                    paths = store.layer_paths(store.resolve(built[-1]))
                    with MergedTree(paths) as tree:
                        assert tree.read(b"/ran") is not None
                except (ImageNotFound, FileNotFoundError):
                    continue  # the collector has removed it

        return work

    def collector(store: ImageStore) -> None:
        while not stop.is_set():
            store.collect_garbage()
            StepCache(store).prune(keep=100)
            for image in store.list()[5:]:
                for name in image.references:
                    try:
                        store.remove(name)
                    except ImageNotFound:
                        continue

    builders = [threading.Thread(target=guarded(builder(number))) for number in range(3)]
    collecting = threading.Thread(target=guarded(collector))
    for thread in (*builders, collecting):
        thread.start()
    for thread in builders:
        thread.join()
    stop.set()
    collecting.join()
    assert errors == []
    assert len(built) == 36
    assert ImageStore(root).check() == ()


def test_a_base_image_stays_while_a_build_stands_on_it(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    build_one(store, tmp_path, "FROM scratch\nRUN base\n", "base")
    StepCache(store).prune()

    class Remover:
        def run(self, step: RunStep, output: Callable[[bytes], None]) -> int:
            ImageStore(store.root).remove("base")
            (step.upper / "new").touch()
            return 0

    request = BuildRequest(context=tmp_path, dockerfile_inline="FROM base\nRUN x\n", tags=("app",))
    image = build(request, store=store, steps=Remover(), progress=lambda _: None)
    with MergedTree(store.layer_paths(image)) as tree:
        assert tree.names(()) == [b"new", b"ran"]
    assert store.check() == ()
