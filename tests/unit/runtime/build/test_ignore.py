""".dockerignore."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.build import ignore
from runtime.build.ignore import IgnoreRules, glob_regex, parse_ignore


def kept(text: str, *paths: str) -> list[str]:
    rules = parse_ignore(text)
    return [path for path in paths if not rules.ignores(path)]


@pytest.mark.parametrize(
    ("text", "paths", "expected"),
    [
        ("a", ("a", "a/b", "b/a", "ab"), ["b/a", "ab"]),
        ("/a/", ("a", "a/b", "b"), ["b"]),
        ("*/b", ("a/b", "a/b/c", "b", "x/y/b"), ["b", "x/y/b"]),
        ("**/b", ("a/b", "b", "x/y/b", "bb"), ["bb"]),
        ("**/*.log", ("x.log", "a/b/x.log", "a/x.txt"), ["a/x.txt"]),
        ("a/**", ("a", "a/b", "a/b/c"), ["a"]),
        ("*\n!*.md\nsecret.md", ("a", "r.md", "secret.md", "d/x.md"), ["r.md"]),
        ("d\n!d/keep", ("d", "d/x", "d/keep", "d/keep/y"), ["d/keep", "d/keep/y"]),
        ("# comment\n\n  a  \n #not a comment", ("a", "#not a comment"), []),
        ("\ufeffa", ("a",), []),
        ("a?c", ("abc", "ac", "a/c"), ["ac", "a/c"]),
        ("[a-c]x", ("ax", "dx"), ["dx"]),
        ("[^a-c]x", ("ax", "dx", "/x"), ["ax", "/x"]),
        (".", ("a",), ["a"]),
        ("./a/../b", ("a", "b"), ["a"]),
        ("\\*", ("*", "a"), ["a"]),
    ],
)  # fmt: skip
def test_the_last_pattern_that_matches_decides(
    text: str, paths: tuple[str, ...], expected: list[str]
) -> None:
    assert kept(text, *paths) == expected


@pytest.mark.parametrize("pattern", ["[", "a[b", "[]a", "[-]", "[b-a]", "a\\", "!"])
def test_a_damaged_pattern_is_an_error(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        IgnoreRules([pattern])


def test_an_ignored_directory_is_searched_only_for_exceptions() -> None:
    assert not parse_ignore("d").may_hold_kept("d")
    assert parse_ignore("d\n!d/x").may_hold_kept("d")
    assert not parse_ignore("d\n!e/x").may_hold_kept("d")
    assert parse_ignore("d\n!**/x").may_hold_kept("d")
    assert parse_ignore("*\n!*/x").may_hold_kept("d")


def test_without_depth_two_stars_are_one() -> None:
    assert glob_regex("a**b", deep=False).match("axb")
    assert not glob_regex("a**b", deep=False).match("a/b")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("*a" * 30 + "b", "a" * 200), ("**/" * 30 + "z", "a/" * 100 + "b"), ("a**" * 30, "a" * 99)],
)
def test_a_pattern_of_many_wildcards_takes_no_time(pattern: str, text: str) -> None:
    assert not glob_regex(pattern + "!").match(text)
    assert glob_regex(pattern).match(text) is False or "**" in pattern


@given(pattern=st.text("ab/*?", min_size=1, max_size=9), text=st.text("ab/", max_size=9))
def test_both_ways_of_matching_agree(pattern: str, text: str) -> None:
    pieces = list(ignore._pieces(pattern, True))
    expected = re.compile("".join(pieces) + r"\Z", re.DOTALL).match(text) is not None
    assert ignore._Automaton(pieces).match(text) is expected
