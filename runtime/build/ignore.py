"""`.dockerignore`: which paths of a context a build may see.

Source: BuildKit reference.md and Docker's build context documentation (".dockerignore
files"); patterns are Go's filepath.Match with `**`, not gitignore's.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: Glob
    exception: bool
    text: str


class Glob(Protocol):
    """A compiled pattern: `match` gives something true for a text that it matches whole."""

    def match(self, text: str, /) -> object: ...


def glob_regex(pattern: str, *, deep: bool = True) -> Glob:
    """A pattern of Go's filepath.Match, with `**` for any number of directories where `deep`.

    `*` and `?` do not match "/"; raises ValueError for a pattern that Go refuses.
    """
    pieces = list(_pieces(pattern, deep))
    if sum(piece in _LOOPS for piece in pieces) > _MOST_LOOPS:
        return _Automaton(pieces)
    return re.compile("".join(pieces) + r"\Z", re.DOTALL)


_DEEP = "(?:.*/)?"
_ANY = ".*"
_STAR = "[^/]*"
_LOOPS = frozenset({_DEEP, _ANY, _STAR})
_MOST_LOOPS = 2
"""With so many wildcards a regular expression is fast; with more, it may try for ages what a
stranger's pattern makes it try, and holds the interpreter meanwhile."""


def _pieces(pattern: str, deep: bool) -> Iterator[str]:
    """The regular expressions of the pattern's parts: wildcards, and single characters."""
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            if deep and pattern.startswith("*", position):
                position += 1
                if pattern.startswith("/", position):
                    position += 1
                yield _DEEP if position < len(pattern) else _ANY
            else:
                yield _STAR
        elif char == "?":
            yield "[^/]"
        elif char == "[":
            text, position = _class(pattern, position)
            yield text
        elif char == "\\":
            if position == len(pattern):
                raise ValueError(f"the pattern {pattern!r} ends with a backslash")
            yield re.escape(pattern[position])
            position += 1
        else:
            yield re.escape(char)


class _Automaton:
    """A pattern of many wildcards, in steps of the text's length times the pattern's.

    State 2n stands before piece n, 2n + 1 within the directories that `**/` passes over.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = pieces
        self._single = [
            None if piece in _LOOPS else re.compile(piece, re.DOTALL) for piece in pieces
        ]

    def match(self, text: str, /) -> bool:
        states = self._reached({0})
        for char in text:
            states = self._reached({after for s in states for after in self._after(s, char)})
            if not states:
                return False
        return 2 * len(self._pieces) in states

    def _reached(self, states: set[int]) -> set[int]:
        """The states with those that need no character."""
        waiting = list(states)
        while waiting:
            number, within = divmod(waiting.pop(), 2)
            if within or number == len(self._pieces) or self._single[number] is not None:
                continue
            further = {2 * number + 2}
            if self._pieces[number] == _DEEP:
                further.add(2 * number + 1)
            waiting += further - states
            states |= further
        return states

    def _after(self, state: int, char: str) -> Iterator[int]:
        number, within = divmod(state, 2)
        if within:
            yield state
            if char == "/":
                yield 2 * number + 2
        elif number < len(self._pieces):
            single, piece = self._single[number], self._pieces[number]
            if single is not None:
                if single.fullmatch(char):
                    yield 2 * number + 2
            elif piece == _ANY or (piece == _STAR and char != "/"):
                yield state


def _class(pattern: str, position: int) -> tuple[str, int]:
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", position)):
        low, position = _class_char(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _class_char(pattern, position + 1)
        if high < low:
            raise ValueError(f"the pattern {pattern!r} has a range that runs backwards")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"(?!/)[{'^' if negated else ''}{''.join(ranges)}]", position + 1


def _class_char(pattern: str, position: int) -> tuple[str, int]:
    if position < len(pattern) and pattern[position] == "\\":
        position += 1
    elif position < len(pattern) and pattern[position] in "-]":
        raise ValueError(f"the pattern {pattern!r} has a damaged character class")
    if position >= len(pattern):
        raise ValueError(f"the pattern {pattern!r} has an open character class")
    return pattern[position], position + 1


class IgnoreRules:
    """The rules of one file; the last pattern that matches a path, or a parent, decides."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns: list[_Pattern] = []
        for written in patterns:
            exception = written.startswith("!")
            text = written[1:].strip() if exception else written
            if not text:
                raise ValueError(f"the pattern {written!r} excepts nothing")
            text = posixpath.normpath(text).lstrip("/")
            if text in (".", ""):
                continue
            self._patterns.append(_Pattern(glob_regex(text), exception, text))
        self._exceptions = any(pattern.exception for pattern in self._patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def ignores(self, path: str) -> bool:
        """True where the rules leave `path`, relative and without "./", out."""
        parents = [path]
        while "/" in parents[-1]:
            parents.append(parents[-1].rpartition("/")[0])
        ignored = False
        for pattern in self._patterns:
            # A match that would change nothing need not be looked for.
            if pattern.exception == ignored and any(map(pattern.regex.match, parents)):
                ignored = not pattern.exception
        return ignored

    def may_hold_kept(self, directory: str) -> bool:
        """False where nothing below the ignored `directory` can be kept."""
        if not self._exceptions:
            return False
        for pattern in self._patterns:
            if not pattern.exception:
                continue
            # A pattern with ** or wildcards in its first components may match anywhere below.
            if "**" in pattern.text or _may_lead_into(pattern.text, directory):
                return True
        return False


def _may_lead_into(pattern: str, directory: str) -> bool:
    wanted = pattern.split("/")
    given = directory.split("/")
    depth = min(len(wanted), len(given))
    prefix = "/".join(wanted[:depth])
    return bool(glob_regex(prefix).match("/".join(given[:depth])))


def parse_ignore(text: str) -> IgnoreRules:
    """The rules of a file's text; raises ValueError for a damaged pattern."""
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        if not line.startswith("#") and (stripped := line.strip()):
            patterns.append(stripped)
    return IgnoreRules(patterns)
