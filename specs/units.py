"""Durations and byte sizes: Compose's notation to integers, and integers to Go's notation.

Durations are nanoseconds, sizes are bytes. Sources: Compose Specification, "Specifying
durations" and "Specifying byte values"; Go's time.Duration and go-units for what they accept.
"""

from __future__ import annotations

import re

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 24 * 3600 * 10**9,
    "w": 7 * 24 * 3600 * 10**9,
}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|[smhdw])")
_PART = re.compile(r"([0-9.]+)([a-zµμ]+)")
_NUMBER = re.compile(r"\+?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MULTIPLE = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_LIMIT = 2**63


def parse_duration(text: str) -> int:
    """`1m30s`, `250ms`, `1.5h`, `2d` as nanoseconds. Raises ValueError."""
    body = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if body == "0":
        return 0
    if not body or _DURATION.sub("", body):
        raise ValueError(f"{text!r} is not a duration like 1m30s")
    total = 0
    for number, unit in _PART.findall(body):
        whole, _, fraction = number.partition(".")
        scale = _NANOSECONDS[unit]
        total += int(whole or 0) * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
    if total >= _LIMIT:
        raise ValueError(f"duration {text!r} is too long")
    return -total if text.startswith("-") else total


def format_duration(nanoseconds: int) -> str:
    """Nanoseconds as Go prints a time.Duration: `1h0m0s`, `1m30s`, `1.5s`, `250ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    value = abs(nanoseconds)
    if value < 10**9:
        for unit, scale in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if value >= scale:
                return f"{sign}{_decimal(value, scale)}{unit}"
    minutes, rest = divmod(value, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds = _decimal(rest, 10**9) + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    if minutes:
        return f"{sign}{minutes}m{seconds}"
    return sign + seconds


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    digits = len(str(scale)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")


def parse_size(text: str) -> int:
    """`64m`, `1.5gb`, `10 MiB`, `512` as bytes (powers of 1024). Raises ValueError."""
    end = max(text.rfind(char) for char in "0123456789. ") + 1
    number, suffix = text[:end].removesuffix(" "), text[end:].lower()
    if not _NUMBER.fullmatch(number) or len(number) > 40:
        raise ValueError(f"{text!r} is not a size like 512m or 2gb")
    unit, rest = suffix[:1], suffix[1:]
    if (unit == "b" and rest) or unit not in ("b", *_MULTIPLE) or rest not in ("", "b", "ib"):
        raise ValueError(f"{text!r} is not a size like 512m or 2gb")
    value = float(number) * _MULTIPLE.get(unit, 1)
    if value >= _LIMIT:
        raise ValueError(f"size {text!r} is too large")
    return int(number) * _MULTIPLE.get(unit, 1) if number.isdigit() else int(value)
