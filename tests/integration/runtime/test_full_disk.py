"""A disk without room ends neither a container nor loses its exit code."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.container.config import LogConfig, Tmpfs
from runtime.linux import mounts
from tests.integration.runtime.yard import Yard, until


@pytest.fixture
def small(tmp_path: Path, layer: Path) -> Iterator[Yard]:
    """A yard whose state lies on a file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    tree = mounts.new_filesystem("tmpfs", (("size", "1m"), ("nr_inodes", "200")))
    target = os.open(place, os.O_PATH)
    mounts.attach(tree, target)
    os.close(target)
    os.close(tree)
    yard = Yard(place, layer)
    try:
        yield yard
        yard.close()
        (place / "fill").unlink(missing_ok=True)
    finally:
        until(lambda: not yard.processes(f"launcher of {yard.root}"), what="the launcher ends")
        mounts.unmount(str(place), mounts.MNT_DETACH)


def _fill(yard: Yard) -> None:
    with (yard.directory / "fill").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def test_a_container_goes_on_and_its_exit_is_recorded(small: Yard) -> None:
    script = """
    echo first
    while [ ! -e /ram/go ]; do sleep 0.01; done
    i=0; while [ $i -lt 2000 ]; do echo "line $i of many that find no room"; i=$((i+1)); done
    touch /ram/done
    while [ -e /ram/go ]; do sleep 0.01; done
    echo last
    exit 7
    """
    id = small.start(
        "sh", "-c", script, tmpfs=(Tmpfs(target="/ram"),), log=LogConfig(max_size=4096, max_files=3)
    )
    small.wait_for_output(id, "first")
    _fill(small)
    small.exec(id, "touch", "/ram/go")
    until(lambda: small.exec(id, "test", "-e", "/ram/done").exit_code == 0, what="all is said")
    assert small.containers.get(id).status == "running"
    (small.directory / "fill").unlink()
    small.exec(id, "rm", "/ram/go")
    assert small.finish(id).exit_code == 7
    assert small.log(id).endswith("last\n")


def test_an_exit_code_has_room_on_a_disk_that_is_full(small: Yard) -> None:
    id = small.start(
        "sh",
        "-c",
        "while [ ! -e /ram/go ]; do sleep 0.01; done; exit 9",
        tmpfs=(Tmpfs(target="/ram"),),
    )
    _fill(small)
    small.exec(id, "touch", "/ram/go")
    assert small.finish(id).exit_code == 9
    small.containers.delete(id)


def test_a_start_without_room_is_an_error_and_leaves_nothing_behind(small: Yard) -> None:
    small.run("true")
    id = small.create("true")
    _fill(small)
    with pytest.raises(Exception, match=r"(?i)no space"):
        small.containers.start(id)
    assert small.containers.get(id).status == "created"
    until(lambda: not small.processes(f"monitor of {id}"), what="the monitor ends")
    (small.directory / "fill").unlink()
    small.containers.start(id)
    assert small.finish(id).exit_code == 0


def test_the_log_has_no_gap_while_it_is_rotated(yard: Yard, layer: Path) -> None:
    from runtime.container.log_reader import LogFollower, read_log

    script = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done"
    id = yard.create("sh", "-c", script, log=LogConfig(max_size=20_000, max_files=50))
    seen: list[str] = []
    with LogFollower(yard.containers.log_path(id), from_start=True) as follower:

        def follow() -> None:
            seen.extend(entry.text for entry in follower.follow())

        thread = threading.Thread(target=follow)
        thread.start()
        yard.containers.start(id)
        thread.join(30)
        assert not thread.is_alive()
    expected = [f"{number}\n" for number in range(3000)]
    assert seen == expected
    path = yard.containers.log_path(id)
    assert [entry.text for entry in read_log(path)] == expected
    assert [entry.text for entry in read_log(path, tail=3)] == expected[-3:]
    assert all(file.stat().st_size <= 20_000 for file in path.parent.glob("container.log*"))
