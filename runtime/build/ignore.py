"""`.dockerignore`: which paths of a context a build may see.

Source: BuildKit reference.md and Docker's build context documentation (".dockerignore
files"); patterns are Go's filepath.Match with `**`, not gitignore's.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: re.Pattern[str]
    exception: bool
    text: str


def glob_regex(pattern: str, *, deep: bool = True) -> re.Pattern[str]:
    """A pattern of Go's filepath.Match, with `**` for any number of directories where `deep`.

    `*` and `?` do not match "/"; raises ValueError for a pattern that Go refuses.
    """
    out = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            if deep and pattern.startswith("*", position):
                position += 1
                if pattern.startswith("/", position):
                    position += 1
                out.append("(?:.*/)?" if position < len(pattern) else ".*")
            else:
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            text, position = _class(pattern, position)
            out.append(text)
        elif char == "\\":
            if position == len(pattern):
                raise ValueError(f"the pattern {pattern!r} ends with a backslash")
            out.append(re.escape(pattern[position]))
            position += 1
        else:
            out.append(re.escape(char))
    return re.compile("".join(out) + r"\Z", re.DOTALL)


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
    return glob_regex(prefix).match("/".join(given[:depth])) is not None


def parse_ignore(text: str) -> IgnoreRules:
    """The rules of a file's text; raises ValueError for a damaged pattern."""
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        if not line.startswith("#") and (stripped := line.strip()):
            patterns.append(stripped)
    return IgnoreRules(patterns)
