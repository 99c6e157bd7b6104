"""Images taken from layouts, and the work of two who do it at once."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import BuildError, ImageError
from runtime.images import layers
from runtime.images import unpack as unpacking
from runtime.images.intake import Intake
from runtime.images.layouts import LayoutPlace, load_directory, take_image
from runtime.images.load import load
from runtime.images.platforms import host_platform
from runtime.images.save import save
from runtime.images.store import ImageStore
from runtime.oci.descriptor import INDEX, MANIFEST, Descriptor
from runtime.oci.digest import digest_of
from runtime.oci.manifest import Index
from tests.unit.runtime.build.workshop import Workshop
from tests.unit.runtime.images.archives import member
from tests.unit.runtime.images.test_store import make

LAYERS = 2


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A store of two images, which is a layout: one:1 and two:latest."""
    place = tmp_path / "layout"
    other = Workshop.__new__(Workshop)
    other.store = ImageStore(place)
    other.base("one:1", member("one", b"1"))
    other.base("two:latest", member("two", b"2"))
    return place


def retag(layout: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Rewrite the layout's index."""
    path = layout / "index.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_stage_stands_on_an_image_of_a_layout(shop: Workshop, layout: Path) -> None:
    digest = ImageStore(layout).resolve("one:1").digest
    for place, expected in (
        (f"{layout}:1", "one"),
        (str(layout), "two"),
        (f"{layout}@{digest}", "one"),
        (f"{layout}:2@{digest}", "one"),
    ):
        contexts = {"base": f"oci-layout://{place}"}
        for dockerfile in ("FROM base\n", "FROM scratch\nCOPY --from=base / /\n"):
            image = shop.build(dockerfile, contexts=contexts)
            assert list(shop.files(image)) == [expected]
    names = {name for image in shop.store.list() for name in image.references}
    assert names == set(), "what a build stands on gets no name"
    shop.store.prune(everything=True)
    assert shop.store.check() == ()


def test_what_a_layout_has_not_is_said_with_what_it_has(shop: Workshop, layout: Path) -> None:
    other = "sha256:" + "0" * 64
    for place, message in (
        (f"{layout}:3", r"inline:1: the layout .* has no 3; it has 1, latest"),
        (f"{layout}@{other}", f"has no {other}; it has 1, latest"),
        (f"{layout}@sha256:1", r"is not an image of a layout: write path\[:tag\]"),
        (f"{layout}/absent:1", "inline:1: there is no OCI image layout at .*/absent"),
        (f"{layout}/blobs", "is not an OCI image layout: it has no index.json"),
    ):
        with pytest.raises(BuildError, match=message):
            shop.build("FROM base\n", contexts={"base": f"oci-layout://{place}"})


def test_the_only_image_of_a_layout_needs_no_tag(shop: Workshop, layout: Path) -> None:
    store = ImageStore(layout)
    store.remove("two:latest")
    image = shop.build("FROM base\n", contexts={"base": f"oci-layout://{layout}"})
    assert list(shop.files(image)) == ["one"]


def test_a_platform_is_chosen_and_another_refused(shop: Workshop, layout: Path) -> None:
    store = ImageStore(layout)
    with store.lease() as lease:
        store.create_index([store.resolve("one:1")], ["several:latest"], lease=lease)
    own = host_platform()
    with shop.store.lease() as lease:
        place = LayoutPlace(path=layout, digest=store.resolve("several").digest)
        assert take_image(shop.store, place, own, lease=lease).id == store.resolve("one:1").id
    other = "linux/s390x" if own.architecture != "s390x" else "linux/amd64"
    with pytest.raises(BuildError, match=f"not made for {other}|is for .*, not for {other}"):
        shop.build(
            "FROM base\n",
            contexts={"base": f"oci-layout://{place.path}@{place.digest}"},
            platform=other,
        )


def test_a_hostile_layout_is_refused(shop: Workshop, layout: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    blob = next(ImageStore(layout).blobs.directory.glob("sha256/*"))
    document = ImageStore(layout).resolve("one:1").manifest.config
    path = ImageStore(layout).blobs.path(document.digest)
    for damage in (
        lambda: path.write_bytes(b"x" * document.size),
        lambda: path.symlink_to(secret),
        lambda: os.mkfifo(path),
        lambda: path.mkdir(),
    ):
        content = path.read_bytes()
        path.unlink()
        damage()
        with pytest.raises(ImageError, match=r"is missing|the content is sha256"):
            load_directory(shop.store, layout)
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
        path.write_bytes(content)
    assert blob.exists()
    for text in ("{", "[]", "{}", '{"schemaVersion": 2, "manifests": {}}', "[" * 100_000):
        (layout / "index.json").write_text(text)
        with pytest.raises(ImageError, match=r"index|no image"):
            load_directory(shop.store, layout)
    (layout / "index.json").unlink()
    os.mkfifo(layout / "index.json")
    with pytest.raises(ImageError, match=r"cannot read index\.json"):
        load_directory(shop.store, layout)
    assert shop.store.check() == () and shop.store.list() == []


def indexes(shop: Workshop, layout: Path, depth: int, width: int) -> None:
    """Let the layout hold an index of indexes of … images, each named `width` times."""
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    child = Descriptor.from_document(entry)
    for _ in range(depth):
        content = Index(manifests=(child,) * width).to_bytes()
        child = Descriptor(media_type=INDEX, digest=digest_of(content), size=len(content))
        (layout / "blobs" / child.digest.replace(":", "/")).write_bytes(content)
    (layout / "index.json").write_bytes(Index(manifests=(child,)).to_bytes())


def test_indexes_in_indexes_are_bounded(shop: Workshop, layout: Path) -> None:
    indexes(shop, layout, depth=6, width=1000)  # by 10^18 ways
    with pytest.raises(ImageError, match="not made for"):
        load_directory(shop.store, layout)
    indexes(shop, layout, depth=30, width=1)
    with pytest.raises(ImageError, match="nested deeper than 8"):
        load_directory(shop.store, layout)
    with (
        shop.store.lease() as lease,
        pytest.raises(ImageError, match=r"nested deeper than 8|not made for"),
    ):
        take_image(shop.store, LayoutPlace(path=layout), None, lease=lease)


def test_an_index_that_names_a_layer_as_a_manifest_hinders_nothing(
    shop: Workshop, layout: Path
) -> None:
    store = ImageStore(layout)
    image = store.resolve("one:1")
    real = store.descriptor(image)
    [layer] = image.manifest.layers
    children = (
        dataclasses.replace(real, annotations={}),
        dataclasses.replace(layer, media_type=MANIFEST),
        dataclasses.replace(layer, media_type=INDEX),
    )
    with store.lease() as lease:
        descriptor = store.blobs.put(Index(manifests=children).to_bytes(), INDEX, lease)
        store.add_names(descriptor, ["hostile:1"])
    before = set(store.blobs.digests())
    store.collect_garbage()
    store.disk_usage()
    assert set(store.blobs.digests()) == before
    assert any("hostile" in fault for fault in store.check())
    store.remove("hostile:1")
    assert store.check() == () and store.resolve("one:1").id == image.id


def test_what_is_saved_stays_until_it_is_written(shop: Workshop, tmp_path: Path) -> None:
    shop.base("one:1", member("one", b"1" * 5000))
    out = io.BytesIO()

    def write(piece: bytes) -> None:
        if not out.tell():
            shop.store.remove("one:1")
        out.write(piece)

    save(shop.store, ["one:1"], write)
    [image] = load(ImageStore(tmp_path / "other"), io.BytesIO(out.getvalue()))
    assert image.references == ("one:1",)
    shop.store.collect_garbage()
    assert list(shop.store.blobs.digests()) == []


# Two at once.


def _docker(archive: bytes, place: Path) -> bytes:
    """The same image as an older `docker save` made it."""
    import tarfile

    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as source,
        tarfile.open(fileobj=out, mode="w") as target,
    ):
        for info in source:
            if info.name not in ("index.json", "oci-layout"):
                target.addfile(info, source.extractfile(info) if info.isfile() else None)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["layout", "docker", "stream", "directory"])
def test_two_who_load_the_same_do_the_work_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = ImageStore(tmp_path / "source")
    make(source, "app:1", layers=LAYERS)
    archive = io.BytesIO()
    save(source, ["app:1"], archive.write)
    content = archive.getvalue()
    (tmp_path / "archive").write_bytes(_docker(content, tmp_path) if kind == "docker" else content)
    unpacked: list[str] = []
    unpack = unpacking.unpack

    def counted(*args: object, **named: object) -> object:
        unpacked.append(threading.current_thread().name)
        return unpack(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(layers, "unpack", counted)
    together = threading.Barrier(4)
    ids: list[str] = []

    def work() -> None:
        store = ImageStore(tmp_path / "store")
        with open(tmp_path / "archive", "rb") as file:
            together.wait()
            if kind == "directory":
                [image] = load_directory(store, source.root)
            elif kind == "stream":
                [image] = load(store, io.BytesIO(file.read()))
            else:
                [image] = load(store, file)
        ids.append(image.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids == [source.resolve("app:1").id] * 4
    assert len(unpacked) == LAYERS
    assert ImageStore(tmp_path / "store").check() == ()


def test_a_layer_that_lies_about_its_content_is_refused(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    with store.lease() as lease:
        intake = Intake(store, lease, lambda digest: None)
        assert not intake.have("sha256:" + "0" * 64)
        with pytest.raises(ImageError, match="the content is sha256"):
            intake.take("sha256:" + "0" * 64, 3, io.BytesIO(b"abc"))
    assert list(store.blobs.digests()) == []
