"""Binds of a directory in which containers can put links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.container.config import Mount
from runtime.errors import RuntimeFault
from tests.integration.runtime.yard import Yard


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    place = tmp_path / "shared"
    (place / "conf").mkdir(parents=True)
    (place / "conf/a").write_text("ours\n")
    return place


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "a").write_text("the host's\n")
    return place


def bind(shared: Path, source: str, target: str = "/x") -> Mount:
    return Mount(
        source=str(shared / source), target=target, create_source=True, beneath=str(shared)
    )


def test_what_lies_beneath_is_mounted_through_links_that_stay_there(
    yard: Yard, shared: Path
) -> None:
    (shared / "link").symlink_to("conf")
    mounts = (
        bind(shared, "conf", "/one"),
        bind(shared, "conf/a", "/two"),
        bind(shared, "link", "/three"),
        bind(shared, ".", "/four"),
        bind(shared, "made/here", "/five"),
    )
    run = yard.sh("cat /one/a /two /three/a /four/conf/a; ls -d /five", mounts=mounts)
    assert run.output == "ours\n" * 4 + "/five\n"
    assert (shared / "made/here").is_dir()


@pytest.mark.parametrize("source", ["conf", "conf/a", "conf/new/deep"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_link_that_a_container_put_there_leads_nowhere(
    yard: Yard, shared: Path, outside: Path, source: str, relative: bool
) -> None:
    first = yard.sh("mv /all/conf /all/moved", mounts=(bind(shared, ".", "/all"),))
    assert first.exit_code == 0
    (shared / "conf").symlink_to(os.path.relpath(outside, shared) if relative else outside)
    with pytest.raises(RuntimeFault):
        yard.sh("cat /x /x/a", mounts=(bind(shared, source),))
    assert os.listdir(outside) == ["a"]
