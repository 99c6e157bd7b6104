"""/etc/hosts and /etc/resolv.conf of containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.files import hosts_file, resolv_conf

GOLDENS = Path(__file__).parents[3] / "../shared/corpora/network/resolvconf"
HOST = "nameserver 127.0.0.53\nsearch example.com\noptions trust-ad edns0\n"


def test_a_hosts_file_as_docker_writes_it() -> None:
    text = hosts_file(own=[("10.9.0.2", ("web.example.com", "web"))], extra=[("db", "192.0.2.7")])
    assert text == (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::\tip6-localnet\n"
        "ff00::\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n"
        "192.0.2.7\tdb\n"
        "10.9.0.2\tweb.example.com web\n"
    )


def test_our_resolver_takes_the_place_of_the_hosts() -> None:
    assert resolv_conf(HOST, nameserver="10.9.0.1") == (
        "nameserver 10.9.0.1\nsearch example.com\noptions trust-ad edns0 ndots:0\n"
    )


def test_search_and_options_can_be_replaced() -> None:
    text = resolv_conf(HOST, nameserver="10.9.0.1", search=["a", "b"], options=["ndots:2"])
    assert text == "nameserver 10.9.0.1\nsearch a b\noptions ndots:2\n"
    assert "search" not in resolv_conf(HOST, nameserver="10.9.0.1", search=["."])


def test_without_a_resolver_the_hosts_servers_stay() -> None:
    assert resolv_conf(HOST) == HOST
    assert resolv_conf("nameserver 1.2.3.4.5\n") == ""


@pytest.mark.skipif(not GOLDENS.is_dir(), reason="the corpora are not beside the repository")
@pytest.mark.parametrize(
    ("golden", "host", "settings"),
    [
        (
            "TestRCModify/No_overrides.golden",
            "nameserver 1.2.3.4\nsearch invalid\noptions ndots:0",
            {},
        ),
        ("TestRCModify/No_content_no_overrides.golden", "", {}),
        (
            "TestRCModify/Overrides.golden",
            "nameserver 1.2.3.4\nsearch invalid\noptions ndots:0",
            {
                "nameservers": ["2.3.4.5", "fdba:acdd:587c::53"],
                "search": ["com", "invalid", "example"],
                "options": ["ndots:1", "edns0", "trust-ad"],
            },
        ),
        ("TestRCInvalidNS.golden", "nameserver 1.2.3.4.5", {}),
        (
            "TestRCUnknownDirectives.golden",
            "something unexpected\nnameserver 127.0.0.53\noptions ndots:1\nunrecognised thing\n",
            {},
        ),
        (
            "TestRCTransformForIntNS/ndots_present_and_required.golden",
            "nameserver 127.0.0.53\noptions ndots:1",
            {"nameserver": "127.0.0.11"},
        ),
        (
            "TestRCTransformForIntNS/ndots_missing_but_required.golden",
            "nameserver 127.0.0.53",
            {"nameserver": "127.0.0.11"},
        ),
        (
            "TestRCTransformForIntNS/ndots_host,_override_and_required.golden",
            "nameserver 127.0.0.53\noptions ndots:1",
            {"nameserver": "127.0.0.11", "options": ["ndots:2"]},
        ),
    ],
)
def test_the_text_is_what_docker_makes_of_it(
    golden: str, host: str, settings: dict[str, Any]
) -> None:
    """Docker's file but for its comments, and its order of options that both hold."""
    expected = [
        line
        for line in (GOLDENS / golden).read_text().splitlines()
        if line and not line.startswith("#")
    ]
    made = resolv_conf(host, **settings)
    assert sorted(made.splitlines()) == sorted(expected)
