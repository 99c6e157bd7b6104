"""Values in Go's notation, as Dockerfiles write them."""

from __future__ import annotations

import re

_DURATION = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def parse_duration(text: str) -> int:
    """Nanoseconds of a text such as `1m30s` or `500ms` (Go time.ParseDuration).

    Raises ValueError, also for a negative duration.
    """
    if text == "0":
        return 0
    rest, total = text, 0.0
    while rest:
        match = _DURATION.match(rest)
        if match is None or match[0].startswith("-"):
            raise ValueError(f"{text!r} is not a duration such as 30s or 1m30s")
        number = match[0].lstrip("+").rstrip("nuµmsh")
        total += float(number) * _NANOSECONDS[match[0].lstrip("+")[len(number) :]]
        rest = rest[match.end() :]
    if not text:
        raise ValueError("a duration must not be empty")
    return round(total)


def parse_ports(text: str) -> tuple[str, ...]:
    """The ports of an EXPOSE word: `80`, `80/udp`, `7000-7005`; each as `80/tcp`.

    Raises ValueError.
    """
    ports, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"unknown protocol {protocol!r}")
    first, dash, last = ports.partition("-")
    numbers = [first, last] if dash else [first]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise ValueError(f"{text!r} is not a port")
    low, high = int(first), int(last if dash else first)
    if not 0 < low <= high <= 65535:
        raise ValueError(f"{text!r} is not a port between 1 and 65535")
    return tuple(f"{port}/{protocol}" for port in range(low, high + 1))
