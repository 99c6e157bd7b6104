"""Words and variables, as Dockerfiles know them.

Source: BuildKit frontend/dockerfile/docs/reference.md ("Environment replacement") and its
test tables; the forms of POSIX sh 2.6.2 that Dockerfiles take: `$v ${v} ${v-w} ${v:-w} ${v+w}
${v:+w} ${v?w} ${v:?w} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/w} ${v//p/w}`. Backslashes are
removed from unquoted text, single quotes keep everything, double quotes keep all but
variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SPECIAL = "@*#?-$!0"
_DEFAULT_ESCAPE = "\\"
_LONGEST = 1024 * 1024
"""Characters of a result: a few lines can double a value again and again."""
_LONGEST_MATCHED = 16 * 1024
"""Characters that patterns are tried on, from each place on."""
_DEEPEST = 50


_SPACES = re.compile(r"(\s+)")


class WordError(ValueError):
    """A word that cannot be expanded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """`text` is the whole, `words` what unquoted spaces separate, `used` the names whose value
    was taken, `unset` those that the text expects to be set (`$x`, `${x}`) and that are not."""

    text: str
    words: tuple[str, ...]
    used: frozenset[str]
    unset: frozenset[str]


def expand(
    text: str,
    variables: Mapping[str, str],
    *,
    escape: str = _DEFAULT_ESCAPE,
    raw_quotes: bool = False,
    raw_escapes: bool = False,
    keep_unset: bool = False,
    quotes: bool = True,
) -> Expanded:
    """Expand variables and remove quotes; raises WordError.

    `raw_quotes` and `raw_escapes` keep quotes and escapes in the result, `keep_unset` keeps
    references to names that are not set, `quotes` false takes quotes for ordinary text.
    """
    lexer = _Lexer(text, variables, escape, raw_quotes, raw_escapes, keep_unset, quotes)
    whole, words = lexer.until(None, raw_escapes)
    return Expanded(
        text=whole, words=words, used=frozenset(lexer.used), unset=frozenset(lexer.unset)
    )


class _Words:
    """Collects words: spaces separate them only where they were not quoted."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._word: list[str] = []

    def plain(self, text: str) -> None:
        for piece in _SPACES.split(text):
            if piece and not piece.isspace():
                self._word.append(piece)
            elif piece and self._word:
                self._done.append("".join(self._word))
                self._word = []

    def quoted(self, text: str) -> None:
        if text:
            self._word.append(text)

    def all(self) -> tuple[str, ...]:
        return (*self._done, "".join(self._word)) if self._word else tuple(self._done)


class _Lexer:
    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        escape: str,
        raw_quotes: bool,
        raw_escapes: bool,
        keep_unset: bool,
        quotes: bool,
    ) -> None:
        self._text = text
        self._position = 0
        self._variables = variables
        self._escape = escape
        self._raw_quotes = raw_quotes
        self._raw_escapes = raw_escapes
        self._keep_unset = keep_unset
        self._quotes = quotes
        self._depth = 0
        self._length = 0
        self.used: set[str] = set()
        self.unset: set[str] = set()

    def until(self, stop: str | None, raw_escapes: bool) -> tuple[str, tuple[str, ...]]:
        """Read to the character `stop`, or to the end."""
        outer, self._raw_escapes = self._raw_escapes, raw_escapes
        self._depth += 1
        if self._depth > _DEEPEST:
            raise WordError(f"substitutions are nested deeper than {_DEEPEST}")
        try:
            return self._until(stop)
        finally:
            self._depth -= 1
            self._raw_escapes = outer

    def _until(self, stop: str | None) -> tuple[str, tuple[str, ...]]:
        whole: list[str] = []
        words = _Words()
        while (char := self._peek()) is not None:
            if char == stop:
                self._next()
                return "".join(whole), words.all()
            if char == "$":
                piece = self._dollar()
                words.plain(piece)
            elif self._quotes and char == "'":
                piece = self._single()
                words.quoted(piece)
            elif self._quotes and char == '"':
                piece = self._double()
                words.quoted(piece)
            elif char == self._escape:
                self._next()
                piece = char if self._raw_escapes else ""
                piece += self._next() or ""
                if piece:
                    words.quoted(piece)
            else:
                self._next()
                piece = char
                words.plain(piece)
            whole.append(piece)
        if stop is not None:
            raise WordError(f"unexpected end while looking for {stop!r}")
        return "".join(whole), words.all()

    def _single(self) -> str:
        end = self._text.find("'", self._position + 1)
        if end < 0:
            raise WordError("unexpected end while looking for the closing single quote")
        start, self._position = self._position, end + 1
        return self._text[start : end + 1] if self._raw_quotes else self._text[start + 1 : end]

    def _double(self) -> str:
        self._next()
        pieces = ['"'] if self._raw_quotes else []
        while (char := self._peek()) != '"':
            if char is None:
                raise WordError("unexpected end while looking for the closing double quote")
            if char == "$":
                pieces.append(self._dollar())
                continue
            self._next()
            if char == self._escape:
                if self._raw_escapes:
                    pieces.append(char)
                following = self._peek()
                if following is None:
                    continue
                if following in ('"', "$", self._escape):
                    self._next()
                    char = following
                elif self._raw_escapes:
                    continue
            pieces.append(char)
        self._next()
        if self._raw_quotes:
            pieces.append('"')
        return "".join(pieces)

    def _dollar(self) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._value(name, plain=True)
            return f"${name}" if value is None and self._keep_unset else value or ""
        self._next()
        if self._peek() is None:
            raise WordError("missing '}'")
        if self._peek() in ("{", "}", ":"):
            raise WordError("bad substitution")
        name = self._name()
        modifier = self._next()
        if modifier == "}":
            value = self._value(name, plain=True)
            return f"${{{name}}}" if value is None and self._keep_unset else value or ""
        if modifier == "/":
            return self._replace(name)
        empty_is_unset = modifier == ":"
        if empty_is_unset:
            modifier = self._next()
        if modifier is None:
            raise WordError("missing '}'")
        written = (":" if empty_is_unset else "") + modifier
        if modifier not in "+-?#%" or (empty_is_unset and modifier in "#%"):
            raise WordError(f"the modifier {written!r} is not supported in ${{{name}…}}")
        word = self.until("}", modifier in "#%")[0]
        value = self._value(name)
        if value is None and self._keep_unset:
            return f"${{{name}{written}{word}}}"
        return self._modified(name, modifier, word, value, empty_is_unset)

    def _modified(
        self, name: str, modifier: str, word: str, value: str | None, empty_is_unset: bool
    ) -> str:
        missing = value is None or (empty_is_unset and value == "")
        if modifier == "-":
            return word if missing else value or ""
        if modifier == "+":
            return "" if missing else word
        if modifier == "?":
            if missing:
                reason = word or f"must not be {'unset' if value is None else 'empty'}"
                raise WordError(f"{name}: {reason}")
            return value or ""
        longest = word.startswith(modifier)
        pattern = word[1:] if longest else word
        if modifier == "#":
            return _without_prefix(_matched(name, value or ""), pattern, longest)
        return _without_suffix(_matched(name, value or ""), pattern, longest)

    def _replace(self, name: str) -> str:
        every = self._peek() == "/"
        if every:
            self._next()
        pattern = self.until("/", True)[0]
        replacement = self.until("}", True)[0]
        value = self._value(name)
        if value is None and self._keep_unset:
            return f"${{{name}{'//' if every else '/'}{pattern}/{replacement}}}"
        regex = _regex(pattern, True)
        found = sum(1 for _ in regex.finditer(_matched(name, value or "")))
        self._bounded(len(value or "") + (found if every else 1) * len(replacement))
        return regex.sub(lambda _: replacement, value or "", 0 if every else 1)

    def _name(self) -> str:
        start = self._position
        first = self._peek()
        if first is None:
            return ""
        if first.isdecimal():
            while (char := self._peek()) is not None and char.isdecimal():
                self._next()
        elif first in _SPECIAL:
            self._next()
        else:
            while (char := self._peek()) is not None and (char.isalnum() or char == "_"):
                self._next()
        return self._text[start : self._position]

    def _value(self, name: str, *, plain: bool = False) -> str | None:
        """The value of a variable; a `plain` use expects it to be set."""
        value = self._variables.get(name)
        if value is not None:
            self._bounded(len(value))
            self.used.add(name)
        elif plain:
            self.unset.add(name)
        return value

    def _bounded(self, length: int) -> None:
        """Raises WordError where all that was put in becomes too long."""
        self._length += length
        if self._length > _LONGEST:
            raise WordError(f"it becomes longer than {_LONGEST} characters")

    def _peek(self) -> str | None:
        return self._text[self._position] if self._position < len(self._text) else None

    def _next(self) -> str | None:
        char = self._peek()
        if char is not None:
            self._position += 1
        return char


def _matched(name: str, value: str) -> str:
    if len(value) > _LONGEST_MATCHED:
        raise WordError(f"{name} is longer than {_LONGEST_MATCHED} characters: no pattern is tried")
    return value


def _regex(pattern: str, longest: bool) -> re.Pattern[str]:
    """A shell pattern of `*` and `?` as a regular expression.

    What stands between two stars is matched where it first stands, for good: a later place
    would leave less to the rest, and trying all of them takes for ever.
    """
    parts = [""]
    chars = iter(pattern)
    for char in chars:
        if char == "*":
            parts.append("")
        elif char == "?":
            parts[-1] += "."
        elif char == "\\":
            following = next(chars, "")
            if following not in ("*", "?", "\\", "}", "/"):
                raise WordError(f"invalid escape '\\{following}' in the pattern {pattern!r}")
            parts[-1] += re.escape(following)
        else:
            parts[-1] += re.escape(char)
    first, *rest = parts
    last = rest.pop() if rest else None
    out = first + "".join(f"(?>.*?{part})" for part in rest)
    if last is not None:
        out += (".*" if longest else ".*?") + last
    return re.compile(out, re.DOTALL)


def _without_prefix(value: str, pattern: str, longest: bool) -> str:
    match = _regex(pattern, longest).match(value)
    return value[match.end() :] if match else value


def _without_suffix(value: str, pattern: str, longest: bool) -> str:
    regex = _regex(pattern, True)
    starts = range(len(value) + 1) if longest else range(len(value), -1, -1)
    for start in starts:
        if regex.fullmatch(value, start):
            return value[:start]
    return value
