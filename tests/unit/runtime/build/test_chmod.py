"""Modes by chmod's two notations."""

from __future__ import annotations

import pytest

from runtime.build.chmod import parse_chmod


@pytest.mark.parametrize(
    ("text", "mode", "directory", "expected"),
    [
        ("0755", 0o600, False, 0o755),
        ("4711", 0o600, False, 0o4711),
        ("u+x", 0o644, False, 0o744),
        ("+x", 0o644, False, 0o755),
        ("a+x", 0o644, False, 0o755),
        ("go-rwx", 0o777, False, 0o700),
        ("u=rwx,go=rx", 0o600, False, 0o755),
        ("a=rX", 0o600, False, 0o444),
        ("a=rX", 0o700, False, 0o555),
        ("a=rX", 0o600, True, 0o555),
        ("u+s,g+s,+t", 0o755, True, 0o7755),
        ("g=u", 0o640, False, 0o660),
        ("u=rw-r", 0o777, False, 0o277),
        ("o=", 0o777, False, 0o770),
    ],
)
def test_a_mode_is_changed(text: str, mode: int, directory: bool, expected: int) -> None:
    assert parse_chmod(text).apply(mode, directory=directory) == expected


@pytest.mark.parametrize("text", ["", "9", "77777", "u", "z+x", "u+q", "u+x,", "rwx", "u*x"])
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--chmod"):
        parse_chmod(text)
