"""Images leave a store and enter another."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from runtime.errors import ImageError, ImageNotFound
from runtime.images.layouts import load_directory
from runtime.images.load import load
from runtime.images.save import save
from runtime.images.store import ImageStore, host_platform
from runtime.oci.descriptor import INDEX, MANIFEST, Descriptor, Platform
from runtime.oci.digest import digest_of
from runtime.oci.manifest import Index
from tests.unit.runtime.images.archives import archive, directory, member
from tests.unit.runtime.images.test_store import make

Opened = Callable[[bytes], BinaryIO]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def other(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "other")


@pytest.fixture(params=["stream", "file"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Opens an archive as what can only be read on, or as a file."""
    with contextlib.ExitStack() as stack:

        def opened(content: bytes) -> BinaryIO:
            if request.param == "stream":
                return io.BytesIO(content)
            path = tmp_path / f"archive-{len(list(tmp_path.iterdir()))}"
            path.write_bytes(b"before it" + content)
            file = stack.enter_context(open(path, "rb"))
            file.seek(len(b"before it"))
            return file

        yield opened


def saved(store: ImageStore, *references: str) -> bytes:
    out = io.BytesIO()
    save(store, references, out.write)
    return out.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for info in tar:
            file = tar.extractfile(info)
            found[info.name] = file.read() if file else b""
    return found


def test_an_image_arrives_as_it_left(store: ImageStore, other: ImageStore, source: Opened) -> None:
    image = make(store, "app:1", "reg.example/app:2", layers=3)
    [again] = load(other, source(saved(store, "app:1", "reg.example/app:2")))
    assert (again.id, again.digest, again.references) == (image.id, image.digest, image.references)
    assert [path.name for path in other.layer_paths(again)] == ["diff"] * 3
    assert (other.layer_paths(again)[2] / "d/2").read_bytes() == b"hello"
    assert other.check() == ()


def test_only_the_names_that_were_asked_for_go_along(
    store: ImageStore, other: ImageStore, source: Opened
) -> None:
    image = make(store, "app:1", "app:2")
    [again] = load(other, source(saved(store, "app:2")))
    assert again.references == ("app:2",)
    [nameless] = load(ImageStore(other.root.parent / "third"), source(saved(store, image.id)))
    assert nameless.references == ()


def test_one_archive_is_a_layout_and_docker_s_own(store: ImageStore) -> None:
    image = make(store, "app:1")
    found = members(saved(store, "app:1"))
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    [entry] = json.loads(found["index.json"])["manifests"]
    assert entry["annotations"] == {
        "io.containerd.image.name": "docker.io/library/app:1",
        "org.opencontainers.image.ref.name": "1",
    }
    [docker] = json.loads(found["manifest.json"])
    assert docker["RepoTags"] == ["app:1"]
    assert digest_of(found[docker["Config"]]) == image.id
    assert all(layer in found for layer in docker["Layers"])


def test_a_compressed_archive_is_loaded(
    store: ImageStore, other: ImageStore, source: Opened
) -> None:
    make(store, "app")
    content = gzip.compress(saved(store, "app"))
    assert load(other, source(content))[0].references == ("app:latest",)


def docker_archive(**extra: bytes) -> tuple[bytes, str]:
    """An archive as old Docker versions write it, and the image's ID."""
    layer = archive(directory("d"), member("d/f", b"1")).getvalue()
    config = json.dumps(
        {
            "architecture": host_platform().architecture,
            "os": "linux",
            "config": {"Cmd": ["x"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer), digest_of(layer)]},
        }
    ).encode()
    name = digest_of(config).removeprefix("sha256:") + ".json"
    manifest = [{"Config": name, "RepoTags": ["old:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in {"a/layer.tar": layer, name: config, **extra}.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("b/layer.tar")
        info.type, info.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        tar.addfile(info)
        info = tarfile.TarInfo("manifest.json")
        content = extra.get("manifest.json") or json.dumps(manifest).encode()
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue(), digest_of(config)


def test_an_old_docker_archive_is_loaded(store: ImageStore, source: Opened) -> None:
    content, image_id = docker_archive()
    [image] = load(store, source(content))
    assert (image.id, image.references) == (image_id, ("old:1",))
    assert len(store.layer_paths(image)) == 2
    assert store.check() == ()


@pytest.mark.parametrize(
    "manifest",
    [b"x", b"{}", b"[1]", b'[{"Config": "x"}]', b'[{"Config": "../../etc/passwd", "Layers": []}]',
     b'[{"Config": "/etc/passwd", "Layers": []}]'],
)  # fmt: skip
def test_a_damaged_docker_archive_is_refused(
    store: ImageStore, manifest: bytes, source: Opened
) -> None:
    content, _ = docker_archive(**{"manifest.json": manifest})
    with pytest.raises(ImageError):
        load(store, source(content))
    assert store.list() == []


def test_a_blob_that_is_not_its_digest_is_refused(
    store: ImageStore, other: ImageStore, source: Opened
) -> None:
    image = make(store, "app")
    content = saved(store, "app")
    digest = image.manifest.layers[0].digest
    path = store.blobs.path(digest)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(ImageError, match=r"not sha256|archive is cut"):
        load(other, source(saved(store, "app")))
    assert other.list() == []
    assert load(other, source(content))


def test_a_missing_blob_is_named(store: ImageStore, other: ImageStore, source: Opened) -> None:
    image = make(store, "app")
    digest = image.manifest.layers[0].digest
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members(saved(store, "app")).items():
            if digest.removeprefix("sha256:") not in name:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    with pytest.raises(ImageError, match=f"blob {digest} is missing"):
        load(other, source(out.getvalue()))
    assert other.list() == []


def test_what_is_no_image_archive_is_refused(store: ImageStore) -> None:
    with pytest.raises(ImageError, match="neither an OCI layout"):
        load(store, archive(member("f", b"1")))
    with pytest.raises(ImageNotFound):
        save(store, ("nothing",), lambda _: None)


def test_a_layout_directory_is_loaded_and_may_be_named(
    store: ImageStore, other: ImageStore
) -> None:
    image = make(store)
    [again] = load_directory(other, store.root, name="given:1")
    assert (again.id, again.references) == (image.id, ("given:1",))
    with pytest.raises(ImageError, match="not an OCI image layout"):
        load_directory(other, other.root.parent)


def test_the_present_platforms_of_an_index_are_saved(
    store: ImageStore, other: ImageStore, source: Opened
) -> None:
    image = make(store, layers=2)
    here = host_platform()
    absent = Descriptor(
        media_type=MANIFEST,
        digest=digest_of(b"absent"),
        size=5,
        platform=Platform(os="linux", architecture="s390x"),
    )
    present = Descriptor(
        media_type=MANIFEST,
        digest=image.digest,
        size=store.blobs.size(image.digest),
        platform=here,
    )
    with store.lease() as lease:
        content = Index(manifests=(absent, present)).to_bytes()
        store.add_names(store.blobs.put(content, INDEX, lease), ("multi:1",))
    assert store.resolve("multi:1").id == image.id
    [again] = load(other, source(saved(store, "multi:1")))
    assert again.digest == digest_of(content)
    assert again.references == ("multi:1",)
    other.collect_garbage()
    assert len(other.layer_paths(again)) == 2
