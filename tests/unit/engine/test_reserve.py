"""Room that is kept on the disk, and given up when there is none besides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.engine.reserve import FILE_NAME, SIZE, Reserve


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The bytes that the disk says are free."""
    said = {"bytes": 100 * SIZE}

    def statvfs(_path: object) -> os.statvfs_result:
        return os.statvfs_result((1, 1, 0, 0, said["bytes"], 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    return said


def test_room_is_kept_while_there_is_plenty(tmp_path: Path, free: dict[str, int]) -> None:
    reserve = Reserve(tmp_path)
    reserve.keep()
    reserve.keep()
    reserve.give()
    kept = (tmp_path / FILE_NAME).stat()
    assert kept.st_size == SIZE
    assert kept.st_blocks * 512 >= SIZE


def test_room_is_given_up_once_the_disk_is_full(tmp_path: Path, free: dict[str, int]) -> None:
    reserve = Reserve(tmp_path)
    reserve.keep()
    free["bytes"] = SIZE - 1
    reserve.give()
    reserve.give()
    assert list(tmp_path.iterdir()) == []


def test_none_is_taken_of_a_disk_that_is_nearly_full(tmp_path: Path, free: dict[str, int]) -> None:
    free["bytes"] = 2 * SIZE
    Reserve(tmp_path).keep()
    assert list(tmp_path.iterdir()) == []
