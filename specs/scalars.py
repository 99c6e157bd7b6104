"""Resolution of plain YAML scalars: the core schema of YAML 1.2, as the ecosystem's parser has it.

Sources: YAML 1.2.2 section 10.3.2, and go-yaml, which Compose uses: it adds `0b` integers,
`_` between digits and the leading-zero octal of YAML 1.1 (`mode: 0440`), and takes neither
`yes`/`no`/`on`/`off` for booleans nor `22:22` for a number. Dates stay strings, and so do `.inf`
and `.nan`, which no attribute can hold and JSON cannot say.
"""

from __future__ import annotations

import base64
import binascii
import math
import re

Scalar = str | int | float | bool | None

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_PREFIXED = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+))")
_STARTS_NUMBER = frozenset("0123456789+-.")
_STARTS_WORD = frozenset("~nNtTfF")

# go-yaml's integers are 64 bits wide; a longer one becomes a float.
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1

TAG_PREFIX = "tag:yaml.org,2002:"


class ScalarError(ValueError):
    """A scalar does not have the form that its explicit tag asks for."""


def resolve(text: str) -> Scalar:
    """The value of the plain (unquoted) scalar `text`."""
    if not text:
        return None
    if text[0] in _STARTS_WORD:
        return None if text in _NULLS else _BOOLEANS.get(text, text)
    if text[0] in _STARTS_NUMBER:
        number = _number(text)
        return text if number is None else number
    return text


def _number(text: str) -> int | float | None:
    plain = text.replace("_", "") if "_" in text and not text.startswith("_") else text
    if _DECIMAL.fullmatch(plain):
        if len(plain) > 300:
            return None  # beyond what a float holds
        whole = int(plain)
        return whole if _MIN_INT <= whole <= _MAX_INT else float(whole)
    if match := _PREFIXED.fullmatch(plain):
        sign, hexadecimal, binary, octal = match.groups()
        digits, base = (hexadecimal, 16) if hexadecimal else (binary, 2) if binary else (octal, 8)
        whole = int(digits, base) * (-1 if sign == "-" else 1)
        return whole if _MIN_INT <= whole <= _MAX_INT else None
    if _FLOAT.fullmatch(plain):
        value = float(plain)
        return value if math.isfinite(value) else None
    return None


def resolve_tagged(text: str, tag: str, *, plain: bool) -> Scalar:
    """The value of a scalar with an explicit `tag` (`!!int`, `!!str`, …).

    Tags outside YAML's own name space do not change the value, as in the ecosystem's parser.

    Raises ScalarError when the text is not of the tag's type.
    """
    kind = tag.removeprefix(TAG_PREFIX)
    if kind == tag:
        return resolve(text) if plain and tag == "?" else text
    value = resolve(text)
    match kind:
        case "str":
            return text
        case "null" if value is None:
            return None
        case "bool" if isinstance(value, bool):
            return value
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            return value
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        case "binary":
            try:
                return base64.b64decode(text, validate=False).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError) as exc:
                raise ScalarError("!!binary value is not base64 of UTF-8 text") from exc
        case "timestamp":
            return text
        case _:
            raise ScalarError(f"cannot decode {text!r} as !!{kind}")
