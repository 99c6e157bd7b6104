"""A directory in which specs are written and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specs.loader import LoadedProject, LoadOptions, load_project

Load = Callable[..., LoadedProject]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes files into a directory named `pro` and loads the project that they make."""

    def load_files(
        files: str | dict[str, str], environ: dict[str, str] | None = None, **options: Any
    ) -> LoadedProject:
        directory = tmp_path / "pro"
        for name, text in ({"compose.yaml": files} if isinstance(files, str) else files).items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return load_project(
            LoadOptions(environ={"HOME": "/home/x", **(environ or {})}, cwd=directory, **options)
        )

    return load_files
