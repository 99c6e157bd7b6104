"""Archives appear under their name when they are whole."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.cli.archive_output import archive_output
from orchestrator.cli.session import Session


def at(place: Path) -> Session:
    return cast(Session, SimpleNamespace(cwd=str(place)))


def test_a_file_is_replaced_at_the_end_and_kept_where_the_work_fails(tmp_path: Path) -> None:
    path = tmp_path / "out.tar"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="broken"), archive_output(at(tmp_path), "out.tar") as out:
        out.write(b"half")
        raise ValueError("broken")
    assert path.read_bytes() == b"old"
    with archive_output(at(tmp_path), "out.tar") as out:
        out.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out.tar"]


def test_a_link_is_written_through_and_a_pipe_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/out")
    with archive_output(at(tmp_path), "link") as out:
        out.write(b"1")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real/out").read_bytes() == b"1"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with archive_output(at(tmp_path), "pipe") as out:
        out.write(b"2")
    assert os.read(reader, 10) == b"2"
    os.close(reader)


def test_a_directory_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), archive_output(at(tmp_path), "absent/out"):
        pytest.fail("it was opened")
