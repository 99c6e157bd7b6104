"""Where BuildKit's cases are; they are not part of this repository."""

from __future__ import annotations

from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[3] / "../shared/corpora/dockerfile"

needs_corpus = pytest.mark.skipif(
    not CORPUS.is_dir(), reason="BuildKit's Dockerfile cases are not beside this checkout"
)


def cases(folder: str) -> list[str]:
    """The names of the cases in a folder, none where the corpus is absent."""
    directory = CORPUS / folder
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
