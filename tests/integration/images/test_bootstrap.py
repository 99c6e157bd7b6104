"""A base system made by mmdebstrap becomes an ordinary image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from runtime.errors import ImageError, Unsupported
from runtime.images.bootstrap import base_system, bootstrap
from runtime.images.merged import MergedTree
from runtime.images.reference import Reference
from runtime.images.store import Image, ImageStore

needs_mmdebstrap = pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def progress() -> list[str]:
    return []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return ImageStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def image(store: ImageStore, progress: list[str]) -> Image:
    return bootstrap(store, "debian:bookworm", progress=progress.append)


@pytest.mark.root
@needs_root
@needs_mmdebstrap
@pytest.mark.timeout(600)
class TestABaseSystem:
    def test_it_has_a_name_and_a_configuration(self, store: ImageStore, image: Image) -> None:
        assert store.resolve("debian:bookworm").id == image.id
        assert image.config.cmd == ("bash",)
        assert store.check() == ()

    def test_its_tree_is_a_debian(self, store: ImageStore, image: Image) -> None:
        with MergedTree(store.layer_paths(image)) as tree:
            assert b"bookworm" in (tree.read(b"/etc/os-release") or b"")
            found = tree.find(b"/usr/bin/passwd")
            assert found is not None and found.status.st_mode & 0o4000
            assert tree.find(b"/bin/bash") is not None

    def test_nothing_of_this_machine_is_in_it(self, store: ImageStore, image: Image) -> None:
        with MergedTree(store.layer_paths(image)) as tree:
            assert tree.find(b"/etc/resolv.conf") is None
            assert tree.find(b"/etc/hostname") is None

    def test_progress_was_told(self, image: Image, progress: list[str]) -> None:
        assert any("installing" in line for line in progress)


@needs_mmdebstrap
@needs_root
@pytest.mark.root
@pytest.mark.timeout(300)
def test_a_failure_says_what_mmdebstrap_said(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    with pytest.raises(ImageError, match="mmdebstrap failed") as caught:
        bootstrap(store, "debian:bookworm", mirror=f"file:{tmp_path}/no-such-mirror")
    assert "no-such-mirror" in str(caught.value)
    assert store.list() == []
    assert os.listdir(store.root / "ingest") == []


def test_without_mmdebstrap_the_hint_names_the_package(tmp_path: Path) -> None:
    environ: Mapping[str, str] = {"PATH": str(tmp_path)}
    with pytest.raises(Unsupported) as caught:
        bootstrap(ImageStore(tmp_path / "store"), "debian:bookworm", environ=environ)
    assert caught.value.hint == "install it: apt-get install mmdebstrap"


@pytest.mark.parametrize(
    ("reference", "suite"),
    [("debian", "stable"), ("debian:12", "bookworm"), ("debian:trixie-slim", "trixie"),
     ("ubuntu:24.04", "noble"), ("docker.io/library/debian:sid", "sid")],
)  # fmt: skip
def test_a_reference_names_a_suite(reference: str, suite: str) -> None:
    assert base_system(Reference.parse(reference)).suite == suite


@pytest.mark.parametrize(
    "reference", ["alpine", "debian:woody", "me/debian:12", "registry.example/debian:12"]
)
def test_what_is_not_known_is_refused(reference: str) -> None:
    with pytest.raises(ImageError) as caught:
        base_system(Reference.parse(reference))
    assert "known are" in (caught.value.hint or "")


def test_a_mirror_opens_other_suites_but_no_options(tmp_path: Path) -> None:
    assert base_system(Reference.parse("debian:woody"), any_suite=True).suite == "woody"
    store = ImageStore(tmp_path)
    with pytest.raises(ImageError, match="is not a mirror"):
        bootstrap(store, "debian:bookworm", mirror="--setup-hook=touch /x")
    with pytest.raises(ImageError, match="no package's name"):
        bootstrap(store, "debian:bookworm", include=("--aptopt=x",))
