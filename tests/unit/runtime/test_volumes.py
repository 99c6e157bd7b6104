"""Local volumes: made once, listed, removed, bounded by their names."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from runtime.errors import NotFound, RuntimeFault, Unsupported
from runtime.volumes import Volumes


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path)


def test_a_volume_is_a_directory_that_can_be_found_again(volumes: Volumes, tmp_path: Path) -> None:
    made = volumes.create("data", labels={"a": "b"})
    assert Path(made.mountpoint).is_dir() and made.created_at > 0
    assert volumes.get("data") == made == Volumes(tmp_path).get("data")
    assert list(volumes.list()) == [made]


def test_making_it_again_gives_the_one_that_is_there(volumes: Volumes) -> None:
    first = volumes.create("data", labels={"a": "b"})
    assert volumes.create("data", labels={"c": "d"}) == first


def test_many_at_once_make_one(volumes: Volumes) -> None:
    made = []
    threads = [threading.Thread(target=lambda: made.append(volumes.create("x"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({item.created_at for item in made}) == 1


def test_removing_takes_the_content(volumes: Volumes, tmp_path: Path) -> None:
    made = volumes.create("data")
    (Path(made.mountpoint) / "file").write_text("x")
    assert volumes.size("data") > 0
    volumes.remove("data")
    with pytest.raises(NotFound):
        volumes.get("data")
    with pytest.raises(NotFound):
        volumes.remove("data")
    assert [entry.name for entry in (tmp_path / "volumes").iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-a", ".a", "ä", "a\n", "x" * 256])
def test_a_name_cannot_leave_the_directory(volumes: Volumes, name: str) -> None:
    with pytest.raises(RuntimeFault, match="not valid") as caught:
        volumes.create(name)
    assert caught.value.hint is not None
    for call in (volumes.get, volumes.remove, volumes.size):
        with pytest.raises(NotFound):
            call(name)


def test_a_host_directory_can_stand_for_it_and_stays(volumes: Volumes, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (tmp_path / "link").symlink_to(host)
    options = {"type": "none", "o": "bind", "device": str(tmp_path / "link")}
    made = volumes.create("data", driver_opts=options)
    assert made.mountpoint == str(host) and made.driver_opts == options
    (host / "file").touch()
    volumes.remove("data")
    assert (host / "file").exists()


def test_what_is_not_built_in_is_said(volumes: Volumes, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="driver nfs"):
        volumes.create("data", driver="nfs")
    with pytest.raises(Unsupported, match="options o, type"):
        volumes.create("data", driver_opts={"type": "tmpfs", "o": "size=1m"})
    missing = {"type": "none", "o": "bind", "device": str(tmp_path / "absent")}
    with pytest.raises(RuntimeFault, match="is not a directory"):
        volumes.create("data", driver_opts=missing)
    assert list(volumes.list()) == []


def test_a_sweep_removes_what_a_crash_left(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("data")
    for name in (".new-x", ".gone-y"):
        (tmp_path / "volumes" / name / "_data").mkdir(parents=True)
    volumes.sweep()
    assert sorted(entry.name for entry in (tmp_path / "volumes").iterdir()) == [".lock", "data"]
    volumes.remove("data")


def test_no_link_leads_a_bound_volume_out_of_what_it_lies_in(
    volumes: Volumes, tmp_path: Path
) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "data").mkdir(parents=True)
    outside.mkdir()
    (tree / "near").symlink_to("data")
    (tree / "far").symlink_to(outside)

    def make(name: str) -> str:
        options = {"type": "none", "o": "bind", "device": str(tree / name)}
        return volumes.create(name, driver_opts=options, beneath=str(tree)).mountpoint

    assert make("data") == str(tree / "data")
    # Where a link leads is decided at each mount: another container may change it.
    assert make("near") == str(tree / "near")
    with pytest.raises(RuntimeFault, match="leads out"):
        make("far")
    with pytest.raises(RuntimeFault, match="is not a directory"):
        make("missing")
