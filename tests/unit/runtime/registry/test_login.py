"""What people give to `login`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runtime.registry.endpoints import RegistryConfig
from runtime.registry.errors import AccessDenied, RegistryError
from runtime.registry.login import login, registry_domain


@pytest.mark.parametrize(
    ("server", "domain"),
    [
        ("", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry.test", "registry.test"),
        ("registry.test:5000", "registry.test:5000"),
        ("https://registry.test/v2/", "registry.test"),
        (" localhost:5000 ", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_the_registry_is_found_in_what_is_given(server: str, domain: str) -> None:
    assert registry_domain(server) == domain


@pytest.mark.parametrize("server", ["a b", "name", "user@host.test", "../x", "host.test:x"])
def test_what_is_no_registry_is_refused(server: str) -> None:
    with pytest.raises(RegistryError, match="is not a registry"):
        registry_domain(server)


@pytest.mark.parametrize(
    ("username", "password"), [("", "x"), ("x", ""), ("a:b", "x"), ("a", "x\ny")]
)
def test_what_cannot_be_sent_is_refused_before_it_is(
    tmp_path: Path, username: str, password: str
) -> None:
    config = RegistryConfig(docker_config=tmp_path)
    with pytest.raises(AccessDenied):
        asyncio.run(login("registry.invalid", username, password, config))
    assert list(tmp_path.iterdir()) == []
