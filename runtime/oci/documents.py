"""Reading and writing of the JSON documents: strict about what is known, keeping what is not.

Every type of this package holds the fields that it does not know in `extra`, so that a
document that passes through us loses nothing (OCI image-spec manifest.md, "Extensibility").
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from runtime.errors import ImageError

MAX_DOCUMENT = 4 * 1024 * 1024
"""Largest manifest or config in bytes (distribution-spec: at least 4 MiB must be accepted)."""


def parse_object(content: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `content`, UTF-8, which can be written again; raises ImageError on
    anything else, such as half a surrogate pair, or a number that JSON has no word for."""
    if len(content) > MAX_DOCUMENT:
        raise ImageError(f"{what} is {len(content)} bytes, more than {MAX_DOCUMENT}")
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=_finite, parse_float=_finite)
        if b"\\u" in content:
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise ImageError(f"{what} is not JSON") from exc
    if not isinstance(document, dict):
        raise ImageError(f"{what} is not a JSON object")
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number of JSON")
    return number


def serialise(document: Mapping[str, Any]) -> bytes:
    """One document, one byte string: keys sorted, no white space, UTF-8. Raises ImageError."""
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        near = text[max(0, exc.start - 40) : exc.start]
        raise ImageError(f"what follows {near!r} is not Unicode") from None


def remaining(document: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The fields of a document that its type does not know."""
    return {name: value for name, value in document.items() if name not in known}


def text(document: Mapping[str, Any], name: str, what: str, default: str = "") -> str:
    value = document.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ImageError(f"{what}: {name} must be a string, not {type(value).__name__}")
    return value


def number(document: Mapping[str, Any], name: str, what: str, default: int = 0) -> int:
    value = document.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise ImageError(f"{what}: {name} must be an integer, not {type(value).__name__}")
    return value


def mapping(document: Mapping[str, Any], name: str, what: str) -> dict[str, Any]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ImageError(f"{what}: {name} must be an object, not {type(value).__name__}")
    return value


def text_mapping(document: Mapping[str, Any], name: str, what: str) -> dict[str, str]:
    value = mapping(document, name, what)
    for key, item in value.items():
        if not isinstance(item, str):
            raise ImageError(f"{what}: {name}[{key!r}] must be a string")
    return value


def objects(document: Mapping[str, Any], name: str, what: str) -> list[dict[str, Any]]:
    value = document.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ImageError(f"{what}: {name} must be a list of objects")
    return value


def texts(document: Mapping[str, Any], name: str, what: str) -> tuple[str, ...] | None:
    """A list of strings; None where the field is absent or null."""
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ImageError(f"{what}: {name} must be a list of strings")
    return tuple(value)
