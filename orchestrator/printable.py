"""Text of others, fit for a terminal: names of files, words of a repository, messages about both.

What a terminal would take for an order (escape sequences, control characters of either set), what
turns the direction of writing around, and bytes that are no text are spelled out.
"""

from __future__ import annotations

import re

_ORDERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """`text` without anything but lines, tabs and characters that show themselves."""
    return text if text.isprintable() else _ORDERS.sub(_spelled, text)


def printable_line(text: str) -> str:
    """The same in one line."""
    if text.isprintable():
        return text
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # how a byte that is no text stands in a name
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
