"""Changes of a layer, whole file systems as archives, and images made of them."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from runtime.build.commit import commit, import_image
from runtime.errors import BuildError
from runtime.images.changes import changes
from runtime.images.flat import export
from runtime.images.merged import MergedTree
from runtime.images.store import ImageStore
from tests.unit.runtime.images.archives import archive, directory, member
from tests.unit.runtime.images.test_pack import OPAQUE
from tests.unit.runtime.images.test_store import make


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """Over an image with d/0: a new file, a removed and a changed one, a directory anew."""
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    (upper / "d/new").write_text("new")
    os.mknod(upper / "d/0", stat.S_IFCHR, 0)
    os.mknod(upper / "nothing", stat.S_IFCHR, 0)
    return upper


def test_changes_are_told_like_docker_s(store: ImageStore, upper: Path) -> None:
    image = make(store, "app")
    with MergedTree(store.layer_paths(image)) as lower:
        found = [(change.kind, change.path) for change in changes(upper, lower)]
    assert found == [("C", "/d"), ("D", "/d/0"), ("A", "/d/new")]


def test_a_directory_made_anew_tells_what_is_gone(store: ImageStore, tmp_path: Path) -> None:
    image = make(store, "app")
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    os.setxattr(upper / "d", OPAQUE, b"y")
    (upper / "d/1").touch()
    with MergedTree(store.layer_paths(image)) as lower:
        found = [(change.kind, change.path) for change in changes(upper, lower)]
    assert found == [("C", "/d"), ("D", "/d/0"), ("A", "/d/1")]


def test_a_commit_keeps_the_layer_and_takes_changes(store: ImageStore, upper: Path) -> None:
    base = make(store, "app")
    before = (upper / "d/new").stat().st_mtime_ns
    image = commit(
        store,
        base,
        upper,
        references=("committed",),
        changes=('CMD ["run"]', "ENV A=1", "WORKDIR /w", "EXPOSE 80"),
        author="me",
        message="why",
    )
    assert (upper / "d/new").stat().st_mtime_ns == before
    assert image.config.cmd == ("run",)
    assert (image.config.env, image.config.working_dir) == (("A=1",), "/w")
    assert image.config.exposed_ports == ("80/tcp",)
    assert (image.config.author, image.config.history[-1].comment) == ("me", "why")
    with MergedTree(store.layer_paths(image)) as tree:
        assert tree.names((b"d",)) == [b"new"]
    assert store.check() == ()


@pytest.mark.parametrize("change", ["RUN x", "FROM x", "ENV", "COPY a b", "ARG x", "EXPOSE x"])
def test_a_change_that_is_none_is_refused(store: ImageStore, upper: Path, change: str) -> None:
    base = make(store, "app")
    with pytest.raises(BuildError):
        commit(store, base, upper, changes=(change,))
    assert len(store.list()) == 1


def test_a_whole_file_system_leaves_and_comes_back(store: ImageStore, upper: Path) -> None:
    image = make(store, "app", layers=2)
    out = io.BytesIO()
    export((*store.layer_paths(image), upper), out.write)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert tar.getnames() == ["d", "d/1", "d/new"]
    out.seek(0)
    imported = import_image(
        store, out, references=("flat",), changes=("CMD x",), message="from outside"
    )
    assert imported.references == ("flat:latest",)
    assert imported.config.cmd == ("/bin/sh", "-c", "x")
    with MergedTree(store.layer_paths(imported)) as tree:
        assert tree.names((b"d",)) == [b"1", b"new"]


def test_hard_links_stay_links_in_an_export(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_text("1")
    os.link(root / "a", root / "b")
    out = io.BytesIO()
    export((root,), out.write)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert tar.getmember("b").linkname == "a"


def test_an_imported_archive_may_be_anything_a_layer_may(store: ImageStore) -> None:
    image = import_image(store, archive(directory("d"), member("d/f", b"1")))
    assert image.references == ()
    assert image.config.history[0].created_by == "import"
