"""A disk that fills up under a build or a load: an error that says so, and a sound store."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.build.steps import RunStep
from runtime.errors import BuildError, ImageError
from runtime.images.load import load
from runtime.images.save import save
from runtime.images.store import ImageStore
from tests.unit.runtime.build.workshop import Workshop

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a file system"),
]
MIB = 1024 * 1024


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def is_sound(store: ImageStore) -> bool:
    return store.check() == () and os.listdir(store.root / "ingest") == []


def test_a_build_that_fills_the_disk_leaves_a_sound_store(small: Path) -> None:
    large = os.urandom(5 * MIB)

    def script(step: RunStep, output: object) -> int:
        (step.upper / "made").write_bytes(large if "large" in step.argv[-1] else b"little")
        return 0

    shop = Workshop(small, script)
    shop.write({"f": "1"})
    # What a command writes may fit once, its layer besides does not.
    for dockerfile in (
        "FROM scratch\nRUN large\n",
        "FROM scratch\nCOPY f /\nRUN large\nRUN large\n",
    ):
        with pytest.raises((BuildError, OSError)) as caught:
            shop.build(dockerfile)
        cause: BaseException | None = caught.value
        said = []
        while cause is not None:
            said.append(str(cause).lower())
            cause = cause.__cause__
        assert "no space left" in " ".join(said)
        assert is_sound(ImageStore(shop.store.root))
    shop.build("FROM scratch\nCOPY f /\nRUN small\n", tags=("app:1",))
    assert is_sound(shop.store)


@pytest.mark.parametrize("is_file", [True, False], ids=["file", "stream"])
def test_a_load_that_fills_the_disk_leaves_a_sound_store(
    small: Path, tmp_path: Path, is_file: bool
) -> None:
    (tmp_path / "shop").mkdir()
    shop = Workshop(tmp_path / "shop")
    (shop.context / "f").write_bytes(os.urandom(4 * MIB))
    shop.build("FROM scratch\nCOPY f /\n", tags=("app:1",))
    with open(tmp_path / "archive", "wb") as file:
        save(shop.store, ["app:1"], file.write)
    store = ImageStore(small / "store")
    with open(tmp_path / "archive", "rb") as file, pytest.raises((ImageError, OSError)) as caught:
        load(store, file if is_file else io.BytesIO(file.read()))
    assert "no space left" in str(caught.value).lower()
    assert is_sound(ImageStore(store.root))
    assert store.list() == []
