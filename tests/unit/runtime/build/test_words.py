"""Forms of variable expansion that BuildKit's tables leave out."""

from __future__ import annotations

import pytest

from runtime.build.words import WordError, expand

VALUES = {"P": "/a/b/c.tar.gz", "E": "", "X": "aXbXc"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${P#*/}", "a/b/c.tar.gz"),
        ("${P##*/}", "c.tar.gz"),
        ("${P%.*}", "/a/b/c.tar"),
        ("${P%%.*}", "/a/b/c"),
        ("${P#nothing}", "/a/b/c.tar.gz"),
        ("${X/X/-}", "a-bXc"),
        ("${X//X/-}", "a-b-c"),
        ("${X//\\//-}", "aXbXc"),
        ("${P//\\//-}", "-a-b-c.tar.gz"),
        ("${U-w}${E-w}${E:-w}${U+w}${E+w}${E:+w}", "www"),
        ("${U:-${P##*/}}", "c.tar.gz"),
    ],
)
def test_patterns_and_defaults(text: str, expected: str) -> None:
    assert expand(text, VALUES).text == expected


def test_a_message_of_the_author_is_the_error() -> None:
    with pytest.raises(WordError, match="U: set it"):
        expand("${U:?set it}", VALUES)


def test_another_escape_character_leaves_backslashes_alone() -> None:
    assert expand("c:\\x\\`$P", VALUES, escape="`").text == "c:\\x\\$P"


def test_names_that_are_not_set_are_told() -> None:
    found = expand("$P ${U} $E", VALUES)
    assert found.unset == {"U"} and found.used == {"P", "E"}
