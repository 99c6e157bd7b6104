"""Random damage: an archive is read or refused, never anything else, and nothing leaks out."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images.load import load
from runtime.images.merged import MergedTree
from runtime.images.store import ImageStore
from runtime.images.streams import decompressed, media_type
from runtime.images.unpack import Limits, unpack
from tests.unit.runtime.images.archives import archive, directory, hardlink, member, symlink
from tests.unit.runtime.images.test_save_load import saved
from tests.unit.runtime.images.test_store import make
from tests.unit.runtime.images.test_tar_reader import sparse_1_0

LIMITS = Limits(stored=1 << 24, apparent=1 << 24)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A copy with bytes changed, dropped, doubled or moved, and sums of headers made right."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                data[place : place + 8] = rng.choice([b"../../..", b"/etc/xxx", b"\xff" * 8])
            case 2:
                block = place - place % 512
                data[block : block + 512] = b""
            case 3:
                block = place - place % 512
                data[block:block] = data[block : block + 512]
            case _:
                data[place : place + 1] = rng.choice([b"0", b"1", b"2", b"5", b"\0", b"S", b"x"])
    for block in range(0, len(data) - 511, 512):
        if data[block + 257 : block + 262] == b"ustar" and rng.random() < 0.9:
            data[block + 148 : block + 156] = b" " * 8
            total = sum(data[block : block + 512])
            data[block + 148 : block + 156] = b"%06o\0 " % total
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_layer_writes_nothing_outside(tmp_path: Path, seed: int) -> None:
    content = archive(
        directory("d"),
        member("d/f", b"x" * 700, xattrs={b"user.a": b"b"}),
        symlink("d/up", "../../../../../../.." + str(tmp_path)),
        symlink("l", "d"),
        hardlink("h", "d/f"),
        sparse_1_0(),
        member("d/.wh.gone"),
        member("n" * 150, b"y"),
        member("d/up2/z", b"z"),
    ).getvalue()
    rng = random.Random(seed)
    for name in ("lower", "outside"):
        (tmp_path / name).mkdir()
    refused = 0
    for _ in range(100):
        layer = tmp_path / "layer"
        layer.mkdir()
        with MergedTree((tmp_path / "lower",)) as lower:
            try:
                unpack(io.BytesIO(damaged(content, rng)), layer, lower=lower, limits=LIMITS)
            except ImageError:
                refused += 1
        assert sorted(os.listdir(tmp_path)) == ["layer", "lower", "outside"]
        assert os.listdir(tmp_path / "lower") == os.listdir(tmp_path / "outside") == []
        shutil.rmtree(layer)
    assert refused > 10


@pytest.mark.parametrize("is_file", [False, True], ids=["stream", "file"])
def test_a_damaged_saved_image_leaves_a_clean_store(tmp_path: Path, is_file: bool) -> None:
    store = ImageStore(tmp_path / "store")
    make(store, "app:1", layers=2)
    content = saved(store, "app:1")
    rng = random.Random(7)
    other = ImageStore(tmp_path / "other")
    for _ in range(60):
        (tmp_path / "archive").write_bytes(damaged(content, rng))
        with open(tmp_path / "archive", "rb") as file:
            try:
                load(other, file if is_file else io.BytesIO(file.read()))
            except ImageError:
                continue
    assert other.check() == ()
    assert os.listdir(other.root / "ingest") == []


@pytest.fixture(params=["isal", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)


@pytest.mark.usefixtures("library")
def test_gzip_is_read_in_pieces_of_bounded_size() -> None:
    content = gzip.compress(bytes(20_000_000)) + gzip.compress(b"second") + bytes(100)
    source = decompressed(io.BytesIO(content), media_type(content[:6]))
    total = 0
    while piece := source.read(1 << 20):
        assert len(piece) <= 1 << 20
        total += len(piece)
    assert total == 20_000_006


@pytest.mark.usefixtures("library")
def test_damaged_gzip_is_an_image_error() -> None:
    content = gzip.compress(os.urandom(100_000))
    rng = random.Random(3)
    for _ in range(100):
        data = bytearray(content)
        data[rng.randrange(10, len(data))] ^= 1 << rng.randrange(8)
        source = decompressed(io.BytesIO(bytes(data[: rng.randint(10, len(data))])), "+gzip")
        with pytest.raises(ImageError):
            while source.read(1 << 16):
                pass


@pytest.mark.usefixtures("library")
def test_an_image_is_made_and_read_by_either_library(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = make(store, "app")
    with store.lease() as lease:
        store.layers.take_away(image.config.diff_ids[0], lease)
    assert (store.layer_paths(image)[0] / "d/0").read_bytes() == b"hello"
