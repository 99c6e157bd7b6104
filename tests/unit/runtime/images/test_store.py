"""The image store: content by digest, names, layers shared, nothing half made."""

from __future__ import annotations

import bz2
import fcntl
import gzip
import io
import lzma
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from runtime.errors import ImageError, ImageNotFound, InUse
from runtime.images.blobs import Blobs
from runtime.images.inspect import inspect
from runtime.images.layers import Layer
from runtime.images.store import Image, ImageStore, choose, host_platform
from runtime.oci.descriptor import LAYER, LAYER_GZIP, LAYER_ZSTD, Descriptor, Platform
from runtime.oci.digest import digest_of
from runtime.oci.image_config import HistoryEntry, ImageConfig
from runtime.oci.manifest import Index
from tests.unit.runtime.images.archives import archive, directory, member


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def make(store: ImageStore, *references: str, content: bytes = b"hello", layers: int = 1) -> Image:
    with store.lease() as lease:
        made: list[Layer] = []
        for number in range(layers):
            source = archive(directory("d"), member(f"d/{number}", content))
            parents = tuple(layer.chain_id for layer in made)
            made.append(store.add_layer(source, lease=lease, parents=parents))
        history = (HistoryEntry(created_by="first"), HistoryEntry(created_by="x", empty_layer=True))
        config = ImageConfig(architecture=host_platform().architecture, cmd=("x",), history=history)
        return store.create_image(config, made, references, lease=lease)


def test_an_image_is_found_by_every_name_it_has(store: ImageStore) -> None:
    image = make(store, "app:1", "registry.example/app")
    hexadecimal = image.id.removeprefix("sha256:")
    for reference in ("app:1", "docker.io/library/app:1", "registry.example/app:latest", image.id,
                      hexadecimal, hexadecimal[:12], f"app@{image.digest}",
                      f"app:1@{image.digest}"):  # fmt: skip
        assert store.resolve(reference) == image
    assert image.references == ("app:1", "registry.example/app:latest")


@pytest.mark.parametrize("reference", ["app:2", "other", "f" * 12, "sha256:" + "0" * 64])
def test_an_unknown_image_is_not_found(store: ImageStore, reference: str) -> None:
    make(store, "app:1")
    with pytest.raises(ImageNotFound):
        store.resolve(reference)


def test_a_name_moves_and_leaves_the_old_image_untagged(store: ImageStore) -> None:
    old = make(store, "app", content=b"old")
    new = make(store, "app", content=b"new")
    assert store.resolve("app").id == new.id
    assert store.resolve(old.id).references == ()
    assert len(store.list()) == 2


def test_a_tag_is_another_name_for_the_same_image(store: ImageStore) -> None:
    image = make(store, "app")
    store.tag("copy:v1", "app")
    assert store.resolve("copy:v1").id == image.id
    store.untag("app")
    assert store.resolve("copy:v1").references == ("copy:v1",)
    store.untag("copy:v1")
    assert store.resolve(image.id).references == ()
    with pytest.raises(ImageNotFound):
        store.untag("copy:v1")


def test_layers_are_unpacked_once_and_lowest_first(store: ImageStore) -> None:
    first = make(store, "one", layers=2)
    second = make(store, "two", layers=3)
    assert store.layer_paths(second)[:2] == store.layer_paths(first)
    names = [sorted(os.listdir(path / "d")) for path in store.layer_paths(second)]
    assert names == [["0"], ["1"], ["2"]]


def test_a_lost_layer_is_unpacked_again_from_its_blob(store: ImageStore) -> None:
    image = make(store, "app")
    with store.lease() as lease:
        store.layers.take_away(image.config.diff_ids[0], lease)
    [path] = ImageStore(store.root).layer_paths(image)
    assert (path / "d/0").read_bytes() == b"hello"


def test_a_layer_of_an_earlier_boot_is_trusted_only_when_settled(store: ImageStore) -> None:
    image = make(store, "app")
    [chain] = image.config.diff_ids
    record = store.layers.path(chain).parent / "layer.json"
    text = record.read_text()
    record.write_text(
        text.replace(Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "x")
    )
    assert ImageStore(store.root).layers.record(chain) is None
    store.settle()
    assert ImageStore(store.root).layers.record(chain) is not None


@pytest.mark.parametrize("kind", [LAYER_GZIP, LAYER_ZSTD])
def test_a_compressed_layer_keeps_its_bytes(store: ImageStore, kind: str) -> None:
    plain = archive(member("f", b"x" * 3_000_000)).getvalue()
    if kind == LAYER_GZIP:
        packed = gzip.compress(plain[:1000]) + gzip.compress(plain[1000:])
    else:
        packed = zstandard.compress(plain)
    with store.lease() as lease:
        layer = store.add_layer(io.BytesIO(packed), lease=lease)
        assert layer.diff_id == digest_of(plain)
        assert layer.descriptor == Descriptor(
            media_type=kind, digest=digest_of(packed), size=len(packed)
        )


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_a_layer_in_a_compression_that_oci_does_not_know_becomes_gzip(
    store: ImageStore, compress: Callable[[bytes], bytes]
) -> None:
    plain = archive(member("f", b"x" * 3_000_000)).getvalue()
    with store.lease() as lease:
        layer = store.add_layer(io.BytesIO(compress(plain)), lease=lease)
        assert layer.diff_id == digest_of(plain)
        assert layer.descriptor.media_type == LAYER_GZIP
        with pytest.raises(ImageError, match=r"stream is (cut|damaged)"):
            store.add_layer(io.BytesIO(compress(plain)[:-30]), lease=lease)


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_such_a_layer_of_an_image_made_elsewhere_is_unpacked(
    store: ImageStore, compress: Callable[[bytes], bytes]
) -> None:
    plain = archive(member("f", b"content")).getvalue()
    packed = compress(plain)
    with store.lease() as lease:
        blob = store.blobs.put(packed, LAYER_GZIP, lease)
        layer = store.layers.ensure(blob, digest_of(plain), parents=(), lease=lease)
        assert (store.layers.path(layer.chain_id) / "f").read_bytes() == b"content"


def test_unpacking_can_be_stopped_and_leaves_nothing(store: ImageStore) -> None:
    plain = archive(*(member(f"f{n}", os.urandom(2_000_000)) for n in range(5))).getvalue()
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with store.lease() as lease:
        blob = store.blobs.put(plain, LAYER, lease)
        with pytest.raises(KeyboardInterrupt):
            store.layers.ensure(blob, digest_of(plain), parents=(), lease=lease, stop=stop)
        assert store.layers.chains() == []
        store.layers.ensure(blob, digest_of(plain), parents=(), lease=lease)
    assert os.listdir(store.root / "ingest") == []


def test_what_a_broken_pull_left_is_counted_and_pruned(store: ImageStore) -> None:
    (store.root / "partial").mkdir()
    left, held = (store.root / "partial" / f"sha256-{digit * 64}" for digit in "ab")
    left.write_bytes(b"x" * 1000)
    held.write_bytes(b"x" * 100)
    with open(held, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        usage = store.disk_usage()
        assert (usage.partial, usage.partial_size, usage.reclaimable) == (2, 1100, 1000)
        assert store.prune().freed == 1000
    assert (left.exists(), held.exists()) == (False, True)


def test_equal_content_gives_an_equal_blob_however_it_arrives(tmp_path: Path) -> None:
    content = archive(*(member(f"f{n}", os.urandom(300_000) * 2) for n in range(6))).getvalue()

    class Dripping(io.BytesIO):
        def __init__(self, most: int) -> None:
            super().__init__(content)
            self._most = most

        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(self._most, size or 0))

    digests = set()
    for most in (1000, 65536, 1 << 30):
        store = ImageStore(tmp_path / str(most))
        with store.lease() as lease:
            digests.add(store.add_layer(Dripping(most), lease=lease).descriptor.digest)
    assert len(digests) == 1


def test_a_layer_that_is_not_what_was_promised_is_refused(store: ImageStore) -> None:
    packed = gzip.compress(archive(member("f")).getvalue())
    promised = Descriptor(media_type=LAYER_GZIP, digest=digest_of(b"other"), size=len(packed))
    with store.lease() as lease, pytest.raises(ImageError, match="not sha256"):
        store.add_layer(io.BytesIO(packed), lease=lease, expected=promised)
    assert store.check() == ()


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"x" * 100_000)[:-20],
        gzip.compress(b"x" * 100_000)[:50] + b"\0" * 100,
        b"BZh91AY&SY",
        zstandard.compress(b"x" * 100_000)[:12],
        b"",
        b"not a tar at all",
    ],
)
def test_a_damaged_stream_leaves_nothing_behind(store: ImageStore, content: bytes) -> None:
    if content:
        with store.lease() as lease, pytest.raises(ImageError):
            store.add_layer(io.BytesIO(content), lease=lease)
    assert list(store.blobs.digests()) == []
    assert store.layers.chains() == []
    assert os.listdir(store.root / "ingest") == []


def test_a_bomb_is_stopped_by_the_limits(tmp_path: Path) -> None:
    from runtime.images.unpack import Limits

    store = ImageStore(tmp_path / "store", limits=Limits(stored=1_000_000))
    bomb = gzip.compress(archive(member("zeros", bytes(50_000_000))).getvalue())
    with store.lease() as lease, pytest.raises(ImageError, match="more than 1000000 bytes"):
        store.add_layer(io.BytesIO(bomb), lease=lease)


def test_removing_the_last_name_frees_everything(store: ImageStore) -> None:
    image = make(store, "app", "app:2")
    assert store.remove("app").deleted == ()
    removed = store.remove("app:2")
    assert removed.deleted == (image.id,)
    assert removed.freed > 0
    assert list(store.blobs.digests()) == []
    assert store.layers.chains() == []


def test_removing_keeps_what_another_image_shares(store: ImageStore) -> None:
    make(store, "one", layers=1)
    make(store, "two", layers=2)
    store.remove("one")
    assert len(store.layer_paths(store.resolve("two"))) == 2
    assert store.check() == ()


def test_an_image_in_use_stays(store: ImageStore) -> None:
    image = make(store, "app")
    with pytest.raises(InUse, match="in use by web-1"):
        store.remove("app", used_by={image.id: ("web-1",)})
    store.tag("other", "app")
    assert store.remove("app", used_by={image.id: ("web-1",)}).untagged == ("app:latest",)


def test_an_id_with_several_names_needs_force(store: ImageStore) -> None:
    image = make(store, "a", "b")
    with pytest.raises(InUse):
        store.remove(image.id)
    assert store.remove(image.id, force=True).untagged == ("a:latest", "b:latest")


def test_a_collection_leaves_what_a_lease_keeps(store: ImageStore) -> None:
    with store.lease() as lease:
        layer = store.add_layer(archive(member("f")), lease=lease)
        ImageStore(store.root).collect_garbage()
        assert store.blobs.has(layer.descriptor.digest)
        assert store.layers.record(layer.chain_id) is not None
    store.collect_garbage()
    assert list(store.blobs.digests()) == []


def test_a_collection_leaves_what_a_pin_names(store: ImageStore) -> None:
    with store.lease() as lease:
        layer = store.add_layer(archive(member("f")), lease=lease)
        pin = store.root / "pins/test.pin"
        pin.write_text(f"{layer.descriptor.digest}\n{layer.chain_id}\n")
    store.collect_garbage()
    assert store.layers.record(layer.chain_id) is not None
    pin.unlink()
    assert store.collect_garbage() > 0


def test_history_gives_each_layer_its_size(store: ImageStore) -> None:
    lines = store.history(make(store, "app", content=b"12345"))
    assert [(line.created_by, line.size, line.empty) for line in lines] == [
        ("x", 0, True),
        ("first", 5, False),
    ]


def test_disk_usage_counts_what_no_image_needs(store: ImageStore) -> None:
    make(store, "app", content=b"12345")
    with store.lease() as lease:
        store.add_layer(archive(member("f", b"1234567")), lease=lease)
    usage = store.disk_usage()
    assert (usage.images, usage.layers, usage.layers_size) == (1, 2, 12)
    assert usage.reclaimable > 7


def test_pruning_takes_untagged_images_that_nobody_uses(store: ImageStore) -> None:
    used = make(store, content=b"used")
    gone = make(store, content=b"gone")
    make(store, "named", content=b"named")
    pruned = store.prune(used=(used.id,))
    assert (pruned.deleted, pruned.untagged) == ((gone.id,), ())
    assert pruned.freed > 0
    assert store.prune(everything=True, used=(used.id,)).untagged == ("named:latest",)
    assert [image.id for image in store.list()] == [used.id]


def test_pruning_knows_age_and_labels(store: ImageStore) -> None:
    def image(created: str, **labels: str) -> str:
        with store.lease() as lease:
            config = ImageConfig(architecture="amd64", created=created, labels=labels)
            return store.create_image(config, (), (), lease=lease).id

    old = image("2020-01-01T00:00:00.123456Z")
    new = image("2025-01-01T00:00:00Z")
    labelled = image("2020-01-01T00:00:00Z", keep="no")
    assert set(store.prune(labels={"keep": "no", "other": None}).deleted) == set()
    assert set(store.prune(labels={"keep": None}).deleted) == {labelled}
    assert set(store.prune(until=datetime(2024, 1, 1, tzinfo=UTC)).deleted) == {old}
    assert [kept.id for kept in store.list()] == [new]


def test_check_names_a_damaged_blob(store: ImageStore) -> None:
    image = make(store, "app")
    path = store.blobs.path(image.manifest.layers[0].digest)
    path.write_bytes(b"damaged")
    faults = ImageStore(store.root).check()
    assert any("is damaged" in fault for fault in faults)
    path.unlink()
    assert any("is not in the store" in fault for fault in ImageStore(store.root).check())


def test_a_digest_is_never_used_as_a_path(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        Blobs(tmp_path).path("sha256:../../etc/passwd")


def test_two_threads_that_want_a_layer_unpack_it_once(store: ImageStore) -> None:
    image = make(store, "app", layers=3)
    with store.lease() as lease:
        for chain in store.layers.chains():
            store.layers.take_away(chain, lease)
    found: list[tuple[Path, ...]] = []
    threads = [
        threading.Thread(target=lambda: found.append(ImageStore(store.root).layer_paths(image)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(set(found)) == 1
    assert store.check() == ()


def test_many_writers_lose_no_name(store: ImageStore) -> None:
    def add(number: int) -> None:
        make(ImageStore(store.root), f"app:{number}", content=b"%d" % number)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name for image in store.list() for name in image.references} == {
        f"app:{number}" for number in range(12)
    }


_IMPORTER = """
import os, signal, sys
from runtime.images.store import ImageStore
class Source:
    def __init__(self, data, stop):
        self.data, self.stop, self.at = data, stop, 0
    def read(self, size):
        if self.at >= self.stop:
            os.kill(os.getpid(), signal.SIGKILL)
        piece = self.data[self.at : self.at + 4096]
        self.at += len(piece)
        return piece
store = ImageStore(sys.argv[1])
with store.lease() as lease, open(sys.argv[2], "rb") as file:
    store.add_layer(Source(file.read(), int(sys.argv[3])), lease=lease)
"""


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.6, 1.0])
def test_a_killed_import_leaves_a_store_that_is_clean(
    store: ImageStore, tmp_path: Path, fraction: float
) -> None:
    content = archive(*(member(f"f{n}", b"x" * 10_000) for n in range(50))).getvalue()
    (tmp_path / "layer.tar").write_bytes(content)
    killed = subprocess.run(
        [sys.executable, "-c", _IMPORTER, str(store.root), str(tmp_path / "layer.tar"),
         str(int(len(content) * fraction))],
        cwd=Path(__file__).parents[4],
        check=False,
    )  # fmt: skip
    assert killed.returncode == -9
    assert os.listdir(store.root / "ingest") != []
    again = ImageStore(store.root)
    assert os.listdir(store.root / "ingest") == []
    assert again.check() == ()
    assert again.layers.chains() == []
    make(again, "app")
    assert again.check() == ()


def test_the_platforms_manifest_is_chosen_from_an_index() -> None:
    def entry(architecture: str, variant: str = "") -> Descriptor:
        return Descriptor(
            media_type="application/vnd.oci.image.manifest.v1+json",
            digest=digest_of((architecture + variant).encode()),
            size=1,
            platform=Platform(os="linux", architecture=architecture, variant=variant),
        )

    index = Index(manifests=(entry("amd64"), entry("arm", "v6"), entry("arm", "v7")))
    wanted = Platform(os="linux", architecture="arm", variant="v7")
    assert choose(index, wanted) == index.manifests[2]
    with pytest.raises(ImageError, match="linux/amd64, linux/arm/v6"):
        choose(index, Platform(os="linux", architecture="s390x"))


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1


def test_an_image_is_described_in_docker_s_words(store: ImageStore) -> None:
    image = make(store, "app:1", "reg.example/app")
    document = inspect(image)
    assert document["Id"] == image.id
    assert document["RepoTags"] == ["app:1", "reg.example/app:latest"]
    assert document["RepoDigests"] == [f"app@{image.digest}", f"reg.example/app@{image.digest}"]
    assert document["Config"]["Cmd"] == ["x"]
    assert document["RootFS"]["Layers"] == list(image.config.diff_ids)
