"""Durations and ports."""

from __future__ import annotations

import pytest

from runtime.build.units import parse_duration, parse_ports


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("30s", 30 * 10**9), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9),
     ("500ms", 5 * 10**8), ("10us", 10_000), ("1ns", 1), (".5s", 5 * 10**8)],
)  # fmt: skip
def test_durations(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1 s", "1d", "1s5"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_ports() -> None:
    assert parse_ports("80") == ("80/tcp",)
    assert parse_ports("53/UDP") == ("53/udp",)
    assert parse_ports("7000-7002/sctp") == ("7000/sctp", "7001/sctp", "7002/sctp")


@pytest.mark.parametrize("text", ["", "0", "65536", "a", "80/icmp", "2-1", "1-", "80/tcp/udp", "²"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|protocol"):
        parse_ports(text)
