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


def test_what_a_stranger_s_word_may_take_is_bounded() -> None:
    doubling = {"A": "x" * 1000}
    for text, message in (
        ("${A:-" * 60 + "x" + "}" * 60, "nested deeper than 50"),
        ("$A" * 2000, "longer than 1048576"),
        ('"' + "$A" * 2000 + '"', "longer than 1048576"),
        ("${A//x/" + "y" * 2000 + "}", "longer than 1048576"),
        ("${B#x}", "longer than 16384"),
        ("${B%x*}", "longer than 16384"),
        ("${B/x*/y}", "longer than 16384"),
    ):
        with pytest.raises(WordError, match=message):
            expand(text, {**doubling, "B": "x" * 20_000})
    slow = "*x" * 30
    for text in (f"${{A##{slow}b}}", f"${{A#{slow}b}}", f"${{A%%{slow}b}}", f"${{A/{slow}b/}}"):
        assert expand(text, doubling).text == doubling["A"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${v#*a*b}", "cabbcab"), ("${v##*a*b}", ""), ("${v%b*}", "abcabbca"), ("${v%%b*}", "a"),
        ("${v/a*c/-}", "-ab"), ("${v//a?/-}", "-c-bc-"), ("${v##*c}", "ab"),
        ("${v#*}", "abcabbcab"),
    ],
)  # fmt: skip
def test_stars_match_as_in_a_shell(text: str, expected: str) -> None:
    assert expand(text, {"v": "abcabbcab"}).text == expected
