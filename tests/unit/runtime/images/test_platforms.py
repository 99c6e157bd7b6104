"""Platforms by name, and which of them run here."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images.platforms import host_platform, parse_platform, runs_here

FOREIGN = "s390x" if host_platform().architecture != "s390x" else "ppc64le"


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("arm64", "linux/arm64"),
        ("linux/x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64/v8"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_a_platform_is_parsed(text: str, platform: str) -> None:
    assert str(parse_platform(text)) == platform


@pytest.mark.parametrize("text", ["", "linux/", "a/b/c/d"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="not a platform"):
        parse_platform(text)


def test_programs_run_natively_or_by_a_registered_interpreter(tmp_path: Path) -> None:
    foreign = parse_platform(FOREIGN)
    assert runs_here(host_platform(), tmp_path)
    assert not runs_here(foreign, tmp_path)
    entry = tmp_path / f"qemu-{FOREIGN}"
    entry.write_text(f"enabled\ninterpreter /usr/bin/qemu-{FOREIGN}-static\nflags: OCF\n")
    assert runs_here(foreign, tmp_path)
    entry.write_text(f"enabled\ninterpreter /usr/bin/qemu-{FOREIGN}-static\nflags: OC\n")
    assert not runs_here(foreign, tmp_path)  # the image would have to hold it
    entry.write_text("disabled\nflags: F\n")
    assert not runs_here(foreign, tmp_path)
    assert not runs_here(parse_platform("windows/amd64"), tmp_path)
