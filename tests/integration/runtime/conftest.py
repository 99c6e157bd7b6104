"""Containers for real: root, namespaces, control groups and a static busybox are needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.runtime.yard import BUSYBOX, Yard, make_layer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not BUSYBOX.exists():
        pytest.skip(f"{BUSYBOX} is not installed (Debian: busybox-static)")
    return make_layer(tmp_path_factory.mktemp("image") / "layer")


@pytest.fixture
def yard(tmp_path: Path, layer: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path, layer)
    try:
        yield yard
    finally:
        yard.close()
    yard.assert_nothing_is_left()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, layer: Path) -> Iterator[Yard]:
    """For tests that ask much of containers but change nothing of the yard: one launcher."""
    yard = Yard(tmp_path_factory.mktemp("yard"), layer)
    try:
        yield yard
    finally:
        yard.close()
    yard.assert_nothing_is_left()


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a static program that makes system calls and prints what came of them."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc to build the probe")
    directory = tmp_path_factory.mktemp("probe")
    source = Path(__file__).with_name("probe.c")
    subprocess.run(
        [compiler, "-static", "-O1", "-o", directory / "probe", source], check=True, timeout=60
    )
    return directory
