"""Other tools read what we write, and we read what they write."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.images.layers import Layer
from runtime.images.layouts import load_directory
from runtime.images.load import load
from runtime.images.merged import MergedTree
from runtime.images.save import save
from runtime.images.store import Image, ImageStore, host_platform
from runtime.images.tar_reader import CHARACTER, FIFO
from runtime.oci.image_config import ImageConfig
from tests.unit.runtime.images.archives import archive, directory, hardlink, member, symlink
from tests.unit.runtime.images.test_pack import describe

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
needs_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci")
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
LAYERS = (
    (
        directory("d", mode=0o2751, mtime_ns=10**18),
        member("d/f", b"one", mode=0o4755, uid=3, gid=4, mtime_ns=1_234_567_891 * 10**9),
        member("d/cap", b"x", xattrs={b"security.capability": CAPABILITY, b"user.a": b"b"}),
        hardlink("hard", "d/f"),
        symlink("soft", "../../../etc/passwd"),
        member("fifo", kind=FIFO),
        member("null", kind=CHARACTER, major=1, minor=3, mode=0o666),
        directory("opaque"),
        member("opaque/old"),
        member("gone"),
        member("n" * 200, b"long"),
        member("ünïcode", b"u"),
    ),
    (member(".wh.gone"), member("opaque/.wh..wh..opq"), member("opaque/new", b"2"),
     member("d/f", b"changed", mtime_ns=5 * 10**9)),
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def image(store: ImageStore) -> Image:
    with store.lease() as lease:
        layers: list[Layer] = []
        for members in LAYERS:
            parents = tuple(layer.chain_id for layer in layers)
            layers.append(store.add_layer(archive(*members), lease=lease, parents=parents))
        config = ImageConfig(architecture=host_platform().architecture, cmd=("x",))
        return store.create_image(config, layers, ("app:1",), lease=lease)


def content(layer: Path) -> dict[str, object]:
    """All of a layer but its whiteouts, which have no time of their own."""
    return {
        name: entry
        for name, entry in describe(layer).items()
        if (layer / name).is_symlink() or not (layer / name).is_char_device() or name == "null"
    }


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@needs_umoci
def test_umoci_unpacks_our_image_to_the_tree_that_we_have(
    store: ImageStore, image: Image, tmp_path: Path
) -> None:
    from runtime.linux import mounts

    bundle, layout = tmp_path / "bundle", tmp_path / "layout"
    out = io.BytesIO()
    save(store, ("app:1",), out.write)
    layout.mkdir()
    subprocess.run(["tar", "-x", "-C", str(layout)], input=out.getvalue(), check=True)
    run("umoci", "unpack", "--image", f"{layout}:1", str(bundle))
    layers = [("lowerdir+", str(path)) for path in reversed(store.layer_paths(image))]
    fd = mounts.new_filesystem("overlay", layers)
    try:
        ours = describe(Path(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
    theirs = describe(bundle / "rootfs")
    # umoci leaves a directory's opaque whiteout in the directory's time.
    for tree in (ours, theirs):
        tree.pop("opaque")
    assert ours == theirs


@needs_skopeo
def test_skopeo_reads_the_store_itself(store: ImageStore, image: Image, tmp_path: Path) -> None:
    name = "docker.io/library/app:1"
    run("skopeo", "copy", f"oci:{store.root}:{name}", f"docker-archive:{tmp_path}/a.tar:back:1")
    other = ImageStore(tmp_path / "other")
    with open(tmp_path / "a.tar", "rb", buffering=0) as file:
        [again] = load(other, file)
    assert again.id == image.id
    assert again.references == ("back:1",)
    assert other.check() == ()
    for ours, theirs in zip(store.layer_paths(image), other.layer_paths(again), strict=True):
        assert content(ours) == content(theirs)


@needs_skopeo
@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "oci"])
def test_an_image_survives_skopeo_and_back(
    store: ImageStore, image: Image, tmp_path: Path, kind: str
) -> None:
    with open(tmp_path / "ours.tar", "wb") as file:
        save(store, ("app:1",), file.write)
    source = "docker-archive" if kind == "docker-archive" else "oci-archive"
    run("skopeo", "copy", f"{source}:{tmp_path}/ours.tar", f"{kind}:{tmp_path}/theirs:app:2")
    other = ImageStore(tmp_path / "other")
    if kind == "oci":
        [again] = load_directory(other, tmp_path / "theirs")
    else:
        with open(tmp_path / "theirs", "rb", buffering=0) as file:
            [again] = load(other, file)
    assert again.config == image.config
    assert again.references == ("app:2",)
    with MergedTree(other.layer_paths(again)) as tree:
        assert tree.read(b"/d/f") == b"changed"
        assert tree.find(b"/gone") is None
