"""What a container has left in a tree is looked at before it is opened."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.gitops.found_files import holds_blob, regular_file, same_content


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_only_regular_files_are_opened(tmp_path: Path, directory: int) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing"):
        with regular_file(directory, name) as file:
            assert file is None
        assert not same_content(directory, name, tmp_path / "file")
        assert not holds_blob(directory, name, "0" * 40)
    with regular_file(directory, "file") as file:
        assert file is not None and file.read() == b"content"
    devices = os.open("/dev", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with regular_file(devices, "null") as file:
            assert file is None
    finally:
        os.close(devices)


def test_a_file_is_known_by_its_content(tmp_path: Path, directory: int) -> None:
    content = bytes(range(256)) * 10_000
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "three").write_bytes(content + b"x")
    assert same_content(directory, "one", tmp_path / "two")
    assert not same_content(directory, "three", tmp_path / "two")
    words = ["git", "hash-object", "--no-filters", str(tmp_path / "one")]
    name = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    assert holds_blob(directory, "one", name)
    assert not holds_blob(directory, "three", name)
