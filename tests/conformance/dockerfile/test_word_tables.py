"""BuildKit's tables of word splitting and variable expansion."""

from __future__ import annotations

import pytest

from runtime.build.words import WordError, expand
from tests.conformance.dockerfile.corpus import CORPUS, needs_corpus

pytestmark = needs_corpus

_VARIABLES = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": ""}


def _expansions() -> list[tuple[str, str]]:
    path = CORPUS / "shell" / "envVarTest"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        platform, separator, rest = line.partition("|")
        if separator and platform.strip() in ("A", "U"):
            source, _, expected = rest.rpartition("|")
            rows.append((source.strip(), expected.strip()))
    return rows


def _splits() -> list[tuple[dict[str, str], str, str]]:
    path = CORPUS / "shell" / "wordsTest"
    if not path.exists():
        return []
    rows = []
    variables: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith("ENV "):
            name, _, value = line[4:].partition("=")
            variables = {**variables, name: value}
            continue
        source, _, expected = line.partition("|")
        rows.append((variables, source.strip(), expected.lstrip()))
    return rows


@pytest.mark.parametrize(("source", "expected"), _expansions())
def test_a_word_expands_as_recorded(source: str, expected: str) -> None:
    if expected == "error":
        with pytest.raises(WordError):
            expand(source, _VARIABLES)
    else:
        assert expand(source, _VARIABLES).text == expected


@pytest.mark.parametrize(("variables", "source", "expected"), _splits())
def test_words_split_as_recorded(variables: dict[str, str], source: str, expected: str) -> None:
    if expected == "error":
        with pytest.raises(WordError):
            expand(source, variables)
    else:
        assert ",".join(expand(source, variables).words) == expected
