"""Build checks."""

from __future__ import annotations

import pytest

from runtime.build.lint import lint
from runtime.build.parser import parse
from runtime.errors import BuildError
from runtime.oci.descriptor import Platform

PLATFORM = Platform(os="linux", architecture="amd64")


def rules(text: str) -> list[tuple[str, int]]:
    return [(warning.rule, warning.line) for warning in lint(parse(text), PLATFORM)]


@pytest.mark.parametrize(
    ("text", "rule", "line"),
    [
        ("FROM a AS Base", "StageNameCasing", 1),
        ("FROM a as b", "FromAsCasing", 1),
        ("FROM a AS scratch", "ReservedStageName", 1),
        ("FROM a\nrun x\nRUN y", "ConsistentInstructionCasing", 2),
        ("from a\nrun x\nRUN y", "ConsistentInstructionCasing", 3),
        ("FROM a\nCMD run it", "JSONArgsRecommended", 2),
        ("FROM a\nENTRYPOINT run it", "JSONArgsRecommended", 2),
        ("FROM a\nMAINTAINER me", "MaintainerDeprecated", 2),
        ("FROM a\nWORKDIR app", "WorkdirRelativePath", 2),
        ('FROM a\nCMD ["x"]\nCMD ["y"]', "MultipleInstructionsDisallowed", 2),
        ("FROM a\nENV a b", "LegacyKeyValueFormat", 2),
        ("FROM a\nLABEL a b", "LegacyKeyValueFormat", 2),
        ("FROM --platform=$TARGETPLATFORM a", "RedundantTargetPlatform", 1),
        ("FROM --platform=linux/amd64 a", "FromPlatformFlagConstDisallowed", 1),
        ("FROM a\nENV API_TOKEN=x", "SecretsUsedInArgOrEnv", 2),
        ("FROM a\nARG password", "SecretsUsedInArgOrEnv", 2),
        ("FROM a\nEXPOSE 80/TCP", "ExposeProtoCasing", 2),
        ("FROM a\nEXPOSE 8080:80", "ExposeInvalidFormat", 2),
        ("FROM a:$TAG", "UndefinedArgInFrom", 1),
        ("ARG TAG\nFROM a:$TAG", "InvalidDefaultArgInFrom", 2),
        ("FROM a\nRUN x \\\n\n y", "NoEmptyContinuation", 2),
    ],
)
def test_what_is_probably_not_meant_is_told(text: str, rule: str, line: int) -> None:
    assert rules(text) == [(rule, line)]


@pytest.mark.parametrize(
    "text",
    [
        "ARG TAG=1\nFROM a:$TAG AS base\nFROM --platform=$BUILDPLATFORM b-${TARGETARCH}",
        'FROM a\nSHELL ["/bin/bash", "-c"]\nCMD run it',
        "FROM a\nWORKDIR /app\nWORKDIR sub\nENV PUBLIC_KEY=x KEYBOARD=de MONKEY=1\n",
        'FROM a\nCMD ["x"]\nFROM b\nCMD ["y"]',
        "FROM a:${TAG:-1}",
        "FROM a\nEXPOSE 80/tcp 53/udp $PORT",
    ],
)
def test_what_is_meant_is_left_alone(text: str) -> None:
    assert rules(text) == []


def test_a_dockerfile_turns_rules_off() -> None:
    text = "FROM a as B\nCMD x\n"
    assert [rule for rule, _ in rules(text)] == [
        "FromAsCasing", "StageNameCasing", "JSONArgsRecommended",
    ]  # fmt: skip
    assert rules("# check=skip=FromAsCasing,stagenamecasing\n" + text) == [
        ("JSONArgsRecommended", 3)
    ]
    assert rules("# check=skip=all\n" + text) == []


def test_a_dockerfile_turns_warnings_into_errors() -> None:
    with pytest.raises(BuildError, match=r"Dockerfile:2: .*\(FromAsCasing\)"):
        rules("# check=error=true\nFROM a as b\n")
