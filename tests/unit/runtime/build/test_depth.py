"""Trees nested more deeply than Python's stack and a process's descriptors would bear."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.build.cache import StepCache
from runtime.build.cache_mounts import cache_mounts
from runtime.build.checkouts import checked_out
from runtime.build.steps import RunStep
from runtime.errors import BuildError, ImageError
from runtime.removal import discard
from runtime.tree_sizes import tree_size
from tests.unit.runtime.build.workshop import Workshop
from tests.unit.runtime.test_removal import nest

DEEP = 1200


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def emptied(place: Path) -> bool:
    return not any(place.iterdir())


def test_the_size_of_a_deep_tree_is_that_of_its_files(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    nest(tree, DEEP)
    (tree / "top").write_bytes(b"12345")
    (tree / "link").symlink_to("/")
    open_before = len(os.listdir("/proc/self/fd"))
    assert tree_size(tree) == 5 + len("/")
    assert tree_size(tree, on_disk=True) >= 512
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert tree_size(tmp_path / "absent") == 0
    discard(tree)


def test_a_step_that_nests_too_deeply_is_refused_and_removed(tmp_path: Path) -> None:
    def script(step: RunStep, output: Callable[[bytes], None]) -> int:
        nest(step.upper, DEEP)
        return 0

    shop = Workshop(tmp_path, script)
    with pytest.raises(BuildError, match=r"inline:2: /d/d/.* nested deeper than the 256"):
        shop.build("FROM scratch\nRUN x\n")
    assert emptied(shop.store.root / "ingest")


def test_a_context_that_nests_too_deeply_is_refused(shop: Workshop) -> None:
    nest(shop.context, DEEP)
    for line in ("COPY . /", "COPY d /", "RUN --mount=target=/x x"):
        with pytest.raises(BuildError, match=r"inline:2: .*nested deeper than the 256"):
            shop.build(f"FROM scratch\n{line}\n")
    assert emptied(shop.store.root / "ingest")
    (shop.context / "f").touch()
    assert shop.files(shop.build("FROM scratch\nCOPY f /\n")) == {"f": ""}
    discard(shop.context)


def test_what_a_dead_build_left_is_swept_however_deep(shop: Workshop) -> None:
    left = shop.store.root / "ingest" / "dead"
    left.mkdir()
    (left / "lock").touch()
    nest(left, DEEP)
    assert type(shop.store)(shop.store.root).check() == ()
    assert emptied(shop.store.root / "ingest")


def test_a_deep_cache_mount_is_counted_and_pruned(tmp_path: Path) -> None:
    def script(step: RunStep, output: Callable[[bytes], None]) -> int:
        cache = Path(step.mounts[0].source)
        nest(cache, DEEP)
        (cache / "f").write_text("content")
        return 0

    shop = Workshop(tmp_path, script)
    shop.build("FROM scratch\nRUN --mount=type=cache,target=/c x\n")
    assert [mount.size for mount in cache_mounts(shop.store)] == [len("content")]
    StepCache(shop.store).prune()
    assert cache_mounts(shop.store) == ()


def test_a_deep_repository_leaves_no_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_out(source: object, target: Path, ssh: object, *, keep: bool) -> None:
        target.mkdir()
        nest(target, DEEP)

    monkeypatch.setattr(
        "runtime.build.checkouts.find_commit",
        lambda address, ssh: type("Source", (), {"subdirectory": ""})(),
    )
    monkeypatch.setattr("runtime.build.checkouts.check_out", check_out)
    with checked_out("https://host/repository.git", tmp_path / "scratch", {}) as found:
        assert (found / "d/file").exists()
    assert emptied(tmp_path / "scratch")


def test_a_dockerfile_of_many_stages_or_long_names_is_built_or_refused(shop: Workshop) -> None:
    stages = "".join(f"FROM {f's{n - 1}' if n else 'scratch'} AS s{n}\n" for n in range(2000))
    assert shop.files(shop.build(stages)) == {}
    for line, message in (
        ("WORKDIR /" + "a/" * 3000, "nested deeper than the 256"),
        ("WORKDIR /" + "a" * 3000, "file name too long"),
        ("COPY . /" + "a/" * 300, "nested deeper than the 256"),
    ):
        with pytest.raises(BuildError, match=f"inline:2: .*{message}"):
            shop.build(f"FROM scratch\n{line}\n")


def test_a_time_that_no_clock_has_is_refused(shop: Workshop) -> None:
    (shop.context / "f").touch()
    with pytest.raises(ImageError, match="after the year 9999"):
        shop.build("FROM scratch\nCOPY f /\n", args={"SOURCE_DATE_EPOCH": "9" * 30})
