"""Challenges of `WWW-Authenticate` headers."""

from __future__ import annotations

import pytest

from runtime.registry.auth import Challenge, basic, parse_challenges


def test_a_bearer_challenge_is_read() -> None:
    (challenge,) = parse_challenges(
        ['Bearer realm="https://auth.test/token",service="reg",scope="repository:a/b:pull,push"']
    )
    assert challenge == Challenge(
        scheme="bearer",
        parameters={
            "realm": "https://auth.test/token",
            "service": "reg",
            "scope": "repository:a/b:pull,push",
        },
    )


@pytest.mark.parametrize(
    ("headers", "schemes"),
    [
        (['Basic realm="x"'], ["basic"]),
        (["BASIC realm=x"], ["basic"]),
        (['Basic realm="x", Bearer realm="y"'], ["basic", "bearer"]),
        (['Bearer realm="a, Basic b"', "Negotiate"], ["bearer", "negotiate"]),
        ([""], []),
        (["Negotiate"], ["negotiate"]),
    ],
)
def test_several_challenges_are_told_apart(headers: list[str], schemes: list[str]) -> None:
    assert [challenge.scheme for challenge in parse_challenges(headers)] == schemes


def test_quoted_characters_are_unquoted() -> None:
    (challenge,) = parse_challenges([r'Basic realm="a \"b\" c"'])
    assert challenge.parameters["realm"] == 'a "b" c'


@pytest.mark.parametrize(
    "header", ["=", ",,,", 'Bearer realm="unfinished', "Bearer " + "a=" * 5000]
)
def test_nonsense_ends_in_nothing_useful_and_at_once(header: str) -> None:
    for challenge in parse_challenges([header]):
        assert "realm" not in challenge.parameters


def test_basic_is_base64_of_name_and_password() -> None:
    assert basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
