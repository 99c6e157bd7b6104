"""What is done for the image store while nothing is built."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.engine.builds import BuildWork
from orchestrator.engine.host import Host
from orchestrator.engine.networks import NetworkWork
from tests.unit.runtime.images.archives import archive, member


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    opened = Host.open(tmp_path / "root", tmp_path / "run")
    yield opened
    opened.close()


def test_layers_are_made_durable_in_a_quiet_moment(host: Host) -> None:
    with host.images.lease() as lease:
        layer = host.images.add_layer(archive(member("f", b"1")), lease=lease)
    place = host.images.layers.path(layer.chain_id).parent
    assert not (place / "settled").exists()
    asyncio.run(BuildWork(host, NetworkWork(host)).tidy())
    assert (place / "settled").exists()
