"""The host's settings for registries."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.registry.endpoints import RegistryConfig
from runtime.registry.errors import RegistryError
from runtime.registry.settings import read_settings

BASE = RegistryConfig(environ={}, insecure=("given.test",))


def test_without_a_file_nothing_changes(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "none", BASE) is BASE


def test_the_file_adds_to_what_is_given(tmp_path: Path) -> None:
    path = tmp_path / "registries.toml"
    path.write_text(
        'insecure = ["registry.lan:5000", "10.0.0.0/8"]\n'
        '[mirrors]\n"docker.io" = ["https://mirror.lan/hub"]\n'
    )
    found = read_settings(path, BASE)
    assert found.insecure == ("given.test", "registry.lan:5000", "10.0.0.0/8")
    assert found.mirrors == {"docker.io": ("https://mirror.lan/hub",)}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("=", "read"),
        ('secure = ["x"]', "unknown setting 'secure'"),
        ('insecure = "x"', "insecure must be a list"),
        ("mirrors = []", "table"),
        ('[mirrors]\n"A b" = []', "not the domain"),
        ('[mirrors]\n"hub" = ["https://x.lan"]', "not the domain"),
        ('[mirrors]\n"a.test" = "https://x.lan"', "mirrors of a.test must be a list"),
        ('[mirrors]\n"a.test" = ["x.lan"]', "x.lan"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "registries.toml"
    path.write_text(text)
    with pytest.raises(RegistryError, match=match):
        read_settings(path, BASE)
