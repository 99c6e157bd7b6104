"""Cache mounts as archives."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.build.cache_mounts import cache_mounts, export_mount, import_mount
from runtime.build.steps import RunStep
from runtime.errors import ImageError, InUse, NotFound
from tests.unit.runtime.build.workshop import Workshop

DOCKERFILE = "FROM scratch\nRUN --mount=type=cache,id={id},target=/c x\n"


def _note(step: RunStep, output: Callable[[bytes], None]) -> int:
    """A step that adds a file to its cache and prints what was there."""
    cache = Path(step.mounts[0].source)
    output(" ".join(sorted(os.listdir(cache))).encode())
    (cache / f"f{len(os.listdir(cache))}").write_text("content")
    return 0


def _shop(place: Path) -> Workshop:
    place.mkdir()
    return Workshop(place, _note)


def test_a_cache_mount_goes_elsewhere(tmp_path: Path) -> None:
    here, there = _shop(tmp_path / "a"), _shop(tmp_path / "b")
    here.build(DOCKERFILE.format(id="../go"))
    [mount] = cache_mounts(here.store)
    assert (mount.id, mount.size) == ("../go", 7)
    packed: list[bytes] = []
    assert export_mount(here.store, "../go", packed.append) >= 1
    for content in (b"".join(packed), gzip.compress(b"".join(packed))):
        import_mount(there.store, "../go", io.BytesIO(content))
        assert [mount.id for mount in cache_mounts(there.store)] == ["../go"]
        there.build(DOCKERFILE.format(id="../go"), no_cache=True)
        [data] = (there.store.root / "build/cache-mounts").glob("*/data")
        assert sorted(os.listdir(data)) == ["f0", "f1"]
    assert os.listdir(there.store.root / "ingest") == []


def test_a_mount_that_is_not_there_or_in_use_is_refused(tmp_path: Path) -> None:
    shop = _shop(tmp_path / "a")
    with pytest.raises(NotFound):
        export_mount(shop.store, "go", lambda _: None)

    def during(step: RunStep, output: Callable[[bytes], None]) -> int:
        with pytest.raises(InUse):
            export_mount(shop.store, "go", lambda _: None)
        with pytest.raises(InUse):
            import_mount(shop.store, "go", io.BytesIO(bytes(10240)))
        return 0

    shop.runner = type(shop.runner)(during)
    shop.build(DOCKERFILE.format(id="go"))
    export_mount(shop.store, "go", lambda _: None)


def test_a_damaged_archive_replaces_nothing(tmp_path: Path) -> None:
    shop = _shop(tmp_path / "a")
    shop.build(DOCKERFILE.format(id="go"))
    with pytest.raises(ImageError):
        import_mount(shop.store, "go", io.BytesIO(b"not an archive" * 100))
    assert [mount.size for mount in cache_mounts(shop.store)] == [7]
