"""Numbers as Go's fmt and encoding/json print them, for values that become strings."""

from __future__ import annotations

import functools
import math
import struct
from typing import Any


def format_value(value: Any) -> str:
    """A scalar as Go's `%v`: `true`, `<nil>`, `1e+21`, `1.5`."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format_float(value)
    return str(value)


def format_float(value: float) -> str:
    """A float64 as Go's `%v`: the shortest digits, an exponent below 1e-4 and from 1e6 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    return _shortest(repr(value), low=-4, high=6)


def json_number(value: float) -> str:
    """A float64 as encoding/json writes it: an exponent below 1e-6 and from 1e21 on."""
    if value == 0:
        return "0"
    text = _shortest(repr(value), low=-6, high=21)
    if "e-0" in text:
        text = text.replace("e-0", "e-")
    return text


def float32(value: float) -> float:
    """The shortest decimal that names the same 32-bit float, as Go prints one."""
    try:
        single = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return value
    for digits in range(1, 10):
        candidate = float(f"{single:.{digits}g}")
        if struct.unpack("f", struct.pack("f", candidate))[0] == single:
            return candidate
    return float(single)


def _shortest(text: str, *, low: int, high: int) -> str:
    sign = "-" if text.startswith("-") else ""
    mantissa, _, exponent_text = text.removeprefix("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    leading = len(whole + fraction) - len((whole + fraction).lstrip("0"))
    exponent = int(exponent_text or 0) + len(whole) - 1 - leading
    digits = digits.rstrip("0") or "0"
    if exponent < low or exponent >= high:
        body = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        return f"{sign}{body}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    if len(digits) <= exponent + 1:
        return sign + digits + "0" * (exponent + 1 - len(digits))
    return f"{sign}{digits[: exponent + 1]}.{digits[exponent + 1 :]}"


def _compare(left: str, right: str) -> int:
    digits = False
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a == b:
            digits = a.isdigit()
            continue
        if a.isalpha() and b.isalpha():
            return -1 if a < b else 1
        if a.isalpha() or b.isalpha():
            first = a.isalpha() if digits else b.isalpha()
            return -1 if first else 1
        return _compare_numbers(left, right, index) or (-1 if a < b else 1)
    return len(left) - len(right)


def _compare_numbers(left: str, right: str, index: int) -> int:
    prefix = 0
    if "0" in (left[index], right[index]):
        before = index - 1
        while before >= 0 and left[before].isdigit():
            if left[before] != "0":
                prefix = 1
                break
            before -= 1

    def read(text: str) -> tuple[int, int]:
        end = index
        while end < len(text) and text[end].isdecimal():
            end += 1
        return int(str(prefix) + text[index:end]), end

    (first, first_end), (second, second_end) = read(left), read(right)
    return (first > second) - (first < second) or first_end - second_end


# The order in which go-yaml writes the keys of a map: numbers within names by their value.
natural_order = functools.cmp_to_key(_compare)
