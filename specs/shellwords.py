"""A command given as one string, split into words as the ecosystem does it.

Quotes and backslashes as in a shell, but no expansion of any kind; an unquoted `;`, `&`, `|`,
`<` or `>` ends the command. Source: the splitter of the reference implementation.
"""

from __future__ import annotations

_ENDS = frozenset(";&|<>")
_SPACES = frozenset(" \t\r\n")


def split(line: str) -> tuple[str, ...]:
    """The words of `line`. Raises ValueError for unbalanced quotes or parentheses."""
    words: list[str] = []
    word = ""
    started = False
    quote = ""
    escaped = False
    for char in line:
        if escaped:
            word += {"t": "\t", "n": "\n"}.get(char, char)
            escaped, started = False, True
        elif char == "\\":
            if quote == "'":
                word += char
            else:
                escaped = True
        elif char in _SPACES:
            if quote:
                word += char
            elif started:
                words.append(word)
                word, started = "", False
        elif char in "\"'" and quote in ("", char, "`"):
            if quote == "`":
                raise ValueError("command has a quote within backticks")
            started = started or quote == char
            quote = "" if quote else char
        else:
            if not quote and char in _ENDS:
                if char == ">" and word[:1].isdigit():
                    started = False
                break
            if char == "`" and quote in ("", "`"):
                quote = "" if quote else "`"
            elif char == "(" and quote in ("", "$"):
                if quote or not word.endswith("$"):
                    raise ValueError("command has an unquoted parenthesis")
                quote = "$"
            elif char == ")" and quote in ("", "$"):
                if not quote:
                    raise ValueError("command has an unquoted parenthesis")
                quote = ""
            word += char
            started = True
    if escaped or quote:
        raise ValueError("command has an unclosed quote")
    if started:
        words.append(word)
    return tuple(words)


def ends_early(line: str) -> str | None:
    """The unquoted operator at which `split` stops, if there is one."""
    quote = ""
    escaped = False
    for char in line:
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif char in "\"'`":
            quote = "" if quote == char else quote or char
        elif char in _ENDS and not quote:
            return char
    return None
