"""Images mounted in containers: the layers together, read-only, all or a part of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.container.config import ImageMount
from runtime.container.tree import open_tree
from runtime.errors import ContainerStartError
from tests.integration.runtime.yard import Yard


@pytest.fixture
def layers(tmp_path: Path) -> tuple[str, ...]:
    """Two layers, of which the upper one changes a file, removes one, and has links."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    (lower / "data/deep").mkdir(parents=True)
    (lower / "data/kept").write_text("kept\n")
    (lower / "data/changed").write_text("old\n")
    (lower / "data/removed").write_text("gone\n")
    (lower / "data/deep/file").write_text("deep\n")
    (upper / "data").mkdir(parents=True)
    (upper / "data/changed").write_text("new\n")
    os.mknod(upper / "data/removed", 0o020000, os.makedev(0, 0))
    (upper / "inner").symlink_to("/data/deep")
    (upper / "outer").symlink_to("../../../../../../../../etc")
    return str(lower), str(upper)


def test_an_image_is_seen_as_its_layers_are_together(yard: Yard, layers: tuple[str, ...]) -> None:
    run = yard.sh("cd /m/data; ls; cat changed", images=(ImageMount(layers=layers, target="/m"),))
    assert run.output == "changed\ndeep\nkept\nnew\n"


def test_an_image_of_one_layer_or_of_none_can_be_mounted(
    yard: Yard, layers: tuple[str, ...]
) -> None:
    images = (
        ImageMount(layers=layers[:1], target="/one"),
        ImageMount(layers=(), target="/none"),
    )
    run = yard.sh("cat /one/data/changed; ls -A /none", images=images)
    assert (run.exit_code, run.output) == (0, "old\n")


@pytest.mark.parametrize("privileged", [False, True])
def test_nothing_can_be_written_to_a_mounted_image(
    yard: Yard, layers: tuple[str, ...], privileged: bool
) -> None:
    run = yard.sh(
        "echo x >/m/data/kept; touch /m/new; rm /m/data/kept",
        images=(ImageMount(layers=layers, target="/m"),),
        privileged=privileged,
    )
    assert run.exit_code != 0 and run.output.count("Read-only file system") == 3
    assert Path(layers[0], "data/kept").read_text() == "kept\n"


def test_a_part_of_an_image_may_be_a_directory_a_file_or_behind_a_link_of_its_own(
    yard: Yard, layers: tuple[str, ...]
) -> None:
    images = (
        ImageMount(layers=layers, target="/directory", subpath="data"),
        ImageMount(layers=layers, target="/file", subpath="data/changed"),
        ImageMount(layers=layers, target="/link", subpath="inner"),
    )
    run = yard.sh("ls /directory; cat /file /link/file", images=images)
    assert run.output == "changed\ndeep\nkept\nnew\ndeep\n"


@pytest.mark.parametrize("subpath", ["outer", "outer/passwd", "data/removed", "nowhere"])
def test_a_part_that_an_image_does_not_have_is_refused(
    yard: Yard, layers: tuple[str, ...], subpath: str
) -> None:
    image = ImageMount(layers=layers, target="/m", subpath=subpath)
    with pytest.raises(ContainerStartError, match="mount an image for /m") as caught:
        yard.sh("ls /m", images=(image,))
    assert caught.value.hint == "the image has no such subpath"


def test_the_files_of_a_stopped_container_include_mounted_images(
    yard: Yard, layers: tuple[str, ...]
) -> None:
    id = yard.create("true", images=(ImageMount(layers=layers, target="/m"),))
    with open_tree(yard.root, yard.sockets, id) as tree:
        fd = os.open("m/data/changed", os.O_RDONLY, dir_fd=tree.fd)
        with os.fdopen(fd) as file:
            assert file.read() == "new\n"
    yard.containers.delete(id)
