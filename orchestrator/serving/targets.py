"""Request targets (RFC 9112, 3.2): a path whose escapes are resolved, and a query."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl

_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_KEPT = {"/": "%2F", "%": "%25"}


class Query(Mapping[str, str]):
    """What stands behind the question mark: a name gives its first value, `all` every one."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        if text:
            for name, value in parse_qsl(text, keep_blank_values=True):
                self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        return self._values[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of the name, in their order."""
        return tuple(self._values.get(name, ()))


def split(target: str) -> tuple[str, str] | None:
    """The path, still escaped, and the query; None for what is no path, such as `*`."""
    if not target.startswith("/"):
        scheme, separator, rest = target.partition("://")
        if not separator or scheme.lower() not in ("http", "https"):
            return None
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("#")[0].partition("?")
    return path, query


def unescape(text: str) -> str:
    """The text with its escapes resolved, but those of / and %, which would change how a path is
    divided. Bytes that are no UTF-8 stay escaped."""
    if "%" not in text:
        return text
    return _ESCAPES.sub(lambda found: _resolved(found[0]), text)


def settle(text: str) -> str:
    """What `unescape` has left."""
    return text.replace("%2F", "/").replace("%25", "%") if "%" in text else text


def _resolved(escapes: str) -> str:
    found = bytes.fromhex(escapes.replace("%", "")).decode(errors="surrogateescape")
    parts, at = [], 0
    for character in found:
        size = 3 * len(character.encode(errors="surrogateescape"))
        lost = "\udc80" <= character <= "\udcff"
        parts.append(escapes[at : at + size] if lost else _KEPT.get(character, character))
        at += size
    return "".join(parts)
