"""Which host serves a reference, and how far it is trusted."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from yarl import URL

from runtime.images.reference import Reference
from runtime.registry.endpoints import (
    RegistryConfig,
    endpoint_of,
    endpoint_of_url,
    endpoints_for_pull,
    is_insecure,
    tls_context,
)
from runtime.registry.errors import RegistryError
from runtime.registry.proxies import proxy_for

PLAIN = RegistryConfig(environ={}, certificates=())


def test_the_default_domain_is_served_by_a_host_of_another_name() -> None:
    (endpoint,) = endpoints_for_pull(Reference.parse("debian"), PLAIN)
    assert endpoint.host == "registry-1.docker.io"
    assert endpoint.domain == "docker.io"
    assert endpoint.schemes == ("https",)
    assert endpoint.verify


def test_another_domain_is_its_own_host() -> None:
    endpoint = endpoint_of("registry.test:5000", PLAIN)
    assert (endpoint.host, endpoint.schemes) == ("registry.test:5000", ("https",))


@pytest.mark.parametrize("domain", ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000"])
def test_this_machine_may_be_spoken_to_without_tls(domain: str) -> None:
    endpoint = endpoint_of(domain, PLAIN)
    assert endpoint.schemes == ("https", "http")
    assert not endpoint.verify


@pytest.mark.parametrize(
    ("domain", "insecure", "expected"),
    [
        ("registry.test:5000", ("registry.test:5000",), True),
        ("registry.test:5000", ("registry.test",), True),
        ("registry.test:5000", ("registry.test:5001",), False),
        ("192.168.3.4:5000", ("192.168.0.0/16",), True),
        ("192.169.3.4:5000", ("192.168.0.0/16",), False),
        ("localhost.example:5000", (), False),
        ("127.0.0.1.example", (), False),
    ],
)
def test_a_registry_is_insecure_when_named_so(
    domain: str, insecure: tuple[str, ...], expected: bool
) -> None:
    assert is_insecure(domain, RegistryConfig(environ={}, insecure=insecure)) is expected


def test_mirrors_are_asked_before_the_registry_and_only_for_their_domain() -> None:
    config = RegistryConfig(
        environ={},
        mirrors={"docker.io": ("https://mirror.test", "http://10.0.0.1:5000/hub")},
    )
    first, second, last = endpoints_for_pull(Reference.parse("debian"), config)
    assert (first.host, first.mirror, first.schemes) == ("mirror.test", True, ("https",))
    assert second.repository("library/debian") == "hub/library/debian"
    assert (last.host, last.mirror) == ("registry-1.docker.io", False)
    assert len(endpoints_for_pull(Reference.parse("other.test/x"), config)) == 1


@pytest.mark.parametrize(
    "url",
    ["mirror.test", "ftp://mirror.test", "https://a:b@mirror.test", "https://", "https://x?y=z"],
)
def test_a_mirror_that_is_no_url_of_a_registry_is_refused(url: str) -> None:
    with pytest.raises(RegistryError, match="not"):
        endpoint_of_url(url, PLAIN, mirror=True)


def test_a_mirror_with_a_bare_name_is_not_taken_for_the_default_domain() -> None:
    assert endpoint_of_url("https://cache", PLAIN, mirror=True).domain == "cache"


def test_an_insecure_registry_is_not_verified_and_others_are() -> None:
    assert tls_context(endpoint_of("localhost:1", PLAIN), PLAIN).verify_mode is ssl.CERT_NONE
    strict = tls_context(endpoint_of("registry.test", PLAIN), PLAIN)
    assert strict.verify_mode is ssl.CERT_REQUIRED
    assert strict.check_hostname


def test_a_client_certificate_without_its_key_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "registry.test:5000"
    directory.mkdir()
    (directory / "client.cert").write_text("")
    config = RegistryConfig(environ={}, certificates=(tmp_path,))
    with pytest.raises(RegistryError, match=r"client\.cert has no key"):
        tls_context(endpoint_of("registry.test:5000", config), config)


def test_an_authority_that_cannot_be_read_is_an_error_and_not_ignored(tmp_path: Path) -> None:
    directory = tmp_path / "registry.test"
    directory.mkdir()
    (directory / "ca.crt").write_text("not a certificate")
    config = RegistryConfig(environ={}, certificates=(tmp_path,))
    with pytest.raises(RegistryError, match=r"certificates for registry\.test"):
        tls_context(endpoint_of("registry.test", config), config)


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://a.test/v2/", {}, None),
        ("https://a.test/v2/", {"HTTPS_PROXY": "http://p.test:3128"}, "http://p.test:3128"),
        ("https://a.test/v2/", {"https_proxy": "p.test:3128"}, "http://p.test:3128"),
        ("https://a.test/v2/", {"HTTP_PROXY": "http://p.test"}, None),
        ("http://a.test/v2/", {"HTTP_PROXY": "http://p.test"}, "http://p.test"),
        ("https://127.0.0.1:5000/", {"HTTPS_PROXY": "http://p.test"}, None),
        ("https://[::1]:5000/", {"HTTPS_PROXY": "http://p.test"}, None),
        ("https://localhost:5000/", {"HTTPS_PROXY": "http://p.test"}, None),
        ("https://a.test/", {"HTTPS_PROXY": "http://p.test", "NO_PROXY": "b.test, a.test"}, None),
        ("https://x.a.test/", {"HTTPS_PROXY": "http://p.test", "NO_PROXY": ".a.test"}, None),
        ("https://a.test/", {"HTTPS_PROXY": "http://p.test", "NO_PROXY": "*"}, None),
        ("https://10.1.2.3/", {"HTTPS_PROXY": "http://p.test", "NO_PROXY": "10.0.0.0/8"}, None),
        (
            "https://ba.test/",
            {"HTTPS_PROXY": "http://p.test", "NO_PROXY": "a.test"},
            "http://p.test",
        ),
    ],
)
def test_proxies_are_taken_from_the_environment(
    url: str, environ: dict[str, str], expected: str | None
) -> None:
    found = proxy_for(URL(url), RegistryConfig(environ=environ))
    assert (None if found is None else str(found).rstrip("/")) == expected


def test_a_proxy_that_is_no_url_is_named() -> None:
    with pytest.raises(RegistryError, match="https_proxy is not"):
        proxy_for(URL("https://a.test"), RegistryConfig(environ={"https_proxy": "ftp://p"}))
