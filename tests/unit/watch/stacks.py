"""Projects for the tests of the dev loop."""

from __future__ import annotations

from pathlib import Path

from specs.loader import LoadOptions, load_project
from specs.project import Project


def load(directory: Path, text: str) -> Project:
    """The project that `text`, as a compose.yaml in `directory`, describes."""
    (directory / "compose.yaml").write_text(text)
    options = LoadOptions(environ={}, cwd=directory, project_name="stack")
    return load_project(options).project
