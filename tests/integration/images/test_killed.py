"""kill -9 at one system call after the other: the store stays sound, the next try succeeds."""

from __future__ import annotations

import io
import os
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.cli.archive_output import archive_output
from orchestrator.cli.session import Session
from runtime.build.builder import BuildRequest, build
from runtime.build.cache import StepCache
from runtime.build.cache_mounts import import_mount
from runtime.build.steps import RunStep
from runtime.images.load import load
from runtime.images.save import save
from runtime.images.store import ImageStore
from runtime.oci.image_config import ImageConfig
from tests.unit.runtime.images.archives import archive, directory, member, symlink

_CALLS = (
    "open", "write", "rename", "replace", "unlink", "rmdir", "mkdir", "fsync", "mknod", "link",
    "symlink", "utime", "fchmod", "pwrite",
)  # fmt: skip
_POINTS = 25
MEMBERS = (directory("d"), member("d/f", b"x" * 300_000), symlink("l", "d/f"), member("d/.wh.g"))


def run_until(call: int, work: Callable[[], object]) -> tuple[bool, int]:
    """Run `work` in a process of its own that is killed at its system call number `call`.

    Gives whether it was, and how many calls there were if not.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0

        def watched(name: str) -> None:
            original = getattr(os, name)

            def function(*args: object, **named: object) -> object:
                nonlocal count
                if count == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return original(*args, **named)

            # os.supports_* hold the functions themselves: shutil asks there.
            for known in (os.supports_dir_fd, os.supports_follow_symlinks, os.supports_fd):
                if original in known:
                    known.add(function)
            setattr(os, name, function)

        write = os.write
        try:
            for name in _CALLS:
                watched(name)
            work()
            write(writer, b"%d" % count)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL), "the work failed by itself"
    return status != 0, int(said or b"0")


class Writer:
    def run(self, step: RunStep, output: Callable[[bytes], None]) -> int:
        (step.upper / "ran").write_text(" ".join(step.argv))
        return 0


class Scene:
    """A store with an image and a build cache, an archive, and a context."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.root = place / "store"
        self.context = place / "context"
        self.context.mkdir(parents=True)
        (self.context / "f").write_bytes(os.urandom(200_000))
        store = ImageStore(self.root)
        with store.lease() as lease:
            layers = [store.add_layer(archive(*MEMBERS), lease=lease)]
            chain = (layers[0].chain_id,)
            second = archive(member("second", b"y" * 100_000))
            layers.append(store.add_layer(second, lease=lease, parents=chain))
            store.create_image(ImageConfig(architecture="amd64"), layers, ("app",), lease=lease)
        packed = io.BytesIO()
        save(store, ["app"], packed.write)
        self.archive = packed.getvalue()
        self.build("old")

    def build(self, tag: str) -> None:
        request = BuildRequest(
            context=self.context,
            dockerfile_inline="FROM app\nCOPY f /f\nRUN x\n",
            tags=(tag,),
            cache_to=(f"type=local,dest={self.place / 'cache'}",),
        )
        build(request, store=ImageStore(self.root), steps=Writer(), progress=lambda _: None)


def _load(scene: Scene) -> None:
    load(ImageStore(scene.root), io.BytesIO(scene.archive))


def _load_anew(scene: Scene) -> None:
    load(ImageStore(scene.place / "fresh"), io.BytesIO(scene.archive))


def _load_file(scene: Scene) -> None:
    (scene.place / "archive").write_bytes(scene.archive)
    with open(scene.place / "archive", "rb") as file:
        load(ImageStore(scene.place / "fresh"), file)


def _unpack(scene: Scene) -> None:
    store = ImageStore(scene.root)
    store.layer_paths(store.resolve("app"))


def _build(scene: Scene) -> None:
    scene.build("new")


def _collect(scene: Scene) -> None:
    store = ImageStore(scene.root)
    StepCache(store).prune()
    store.prune(everything=True)


def _import(scene: Scene) -> None:
    import_mount(ImageStore(scene.root), "cache", archive(*MEMBERS[:3]))


def _save(scene: Scene) -> None:
    session = cast(Session, SimpleNamespace(cwd=str(scene.place)))
    with archive_output(session, "saved") as stream:
        save(ImageStore(scene.root), ["app"], stream.write)


def whole(scene: Scene) -> bool:
    """Whether what was saved is there, and then all of it; raises ImageError."""
    path = scene.place / "saved"
    if not path.exists():
        return False
    with open(path, "rb") as file:
        load(ImageStore(scene.place / "loaded"), file)
    return True


def _forget_layers(scene: Scene) -> None:
    for layer in (scene.root / "layers").iterdir():
        shutil.rmtree(layer)


def _forget_cache(scene: Scene) -> None:
    StepCache(ImageStore(scene.root)).prune()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("work", "before"),
    [
        pytest.param(_load_anew, None, id="load"),
        pytest.param(_load_file, None, id="load from a file"),
        pytest.param(_load, None, id="load what is there"),
        pytest.param(_unpack, _forget_layers, id="unpack"),
        pytest.param(_build, _forget_cache, id="build"),
        pytest.param(_build, None, id="build from the cache"),
        pytest.param(_collect, None, id="collect"),
        pytest.param(_import, None, id="import a cache mount"),
        pytest.param(_save, None, id="save"),
    ],
)
def test_the_store_is_sound_wherever_it_was_killed(
    tmp_path: Path, work: Callable[[Scene], None], before: Callable[[Scene], None] | None
) -> None:
    original = Scene(tmp_path / "original")
    if before is not None:
        before(original)

    def attempt(number: int, call: int) -> tuple[bool, int]:
        scene = object.__new__(Scene)
        scene.place = tmp_path / f"copy{number}"
        shutil.copytree(original.place, scene.place, symlinks=True, copy_function=_copy)
        scene.root, scene.context = scene.place / "store", scene.place / "context"
        scene.archive = original.archive
        killed, calls = run_until(call, lambda: work(scene))
        for root in (scene.root, scene.place / "fresh"):
            if root.exists():
                store = ImageStore(root)
                assert store.check() == ()
                assert os.listdir(root / "ingest") == []
        whole(scene)
        work(scene)
        assert whole(scene) or work is not _save
        for root in (scene.root, scene.place / "fresh"):
            if root.exists():
                assert ImageStore(root).check() == ()
        shutil.rmtree(scene.place)
        return killed, calls

    _, calls = attempt(0, -1)
    assert calls > 10
    points = range(0, calls, max(1, calls // _POINTS))
    outcomes = [attempt(number, call)[0] for number, call in enumerate(points, 1)]
    assert sum(outcomes) >= len(outcomes) - 3, "threads may make the last calls in another order"


def _copy(source: str, target: str) -> str:
    """As shutil.copy2, but a whiteout stays a whiteout."""
    if os.path.isfile(source):
        return shutil.copy2(source, target)
    os.mknod(target, os.lstat(source).st_mode, os.lstat(source).st_rdev)
    return target
