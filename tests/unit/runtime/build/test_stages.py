"""Dividing a Dockerfile into stages."""

from __future__ import annotations

import pytest

from runtime.build.parser import parse
from runtime.build.stages import Stages, divide
from runtime.errors import BuildError


def stages(text: str, **args: str) -> Stages:
    return divide(parse(text), args, {"TARGETARCH": "amd64"})


def test_only_what_the_target_needs_is_reached() -> None:
    found = stages(
        "FROM a AS one\nFROM b AS two\nFROM c AS unused\n"
        "FROM two\nCOPY --from=one /x /x\nRUN --mount=type=bind,from=0,target=/y true\n"
    )
    assert found.reachable(3) == (0, 1, 3)
    assert found.reachable(found.target("unused")) == (2,)
    assert found.target(None) == 3


def test_a_stage_may_build_on_another_by_name_only() -> None:
    found = stages("FROM a AS Base\nFROM base\nFROM 0\n")
    assert [stage.base_stage for stage in found.stages] == [None, 0, None]


def test_a_global_arg_fills_from() -> None:
    text = "ARG TAG=12\nARG IMAGE=debian:${TAG}\nFROM ${IMAGE}-$TARGETARCH\n"
    assert stages(text).stages[0].base == "debian:12-amd64"
    assert stages(text, TAG="13").stages[0].base == "debian:13-amd64"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("RUN x\nFROM a", 1, "first instruction must be FROM"),
        ("ARG A", None, "no FROM"),
        ("FROM $A", 1, "is empty once"),
        ("FROM a AS x\nFROM b AS x", 2, "two stages"),
        ("FROM a\nCOPY --from=1 x y", 2, "no stage 1 before"),
        ("FROM a AS s\nCOPY --from=s x y", 2, "cannot copy from itself"),
    ],
)
def test_what_cannot_be_divided_is_refused(text: str, line: int | None, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        stages(text)
    assert caught.value.line == line


def test_an_unknown_target_names_the_stages() -> None:
    with pytest.raises(BuildError) as caught:
        stages("FROM a AS one\nFROM b").target("two")
    assert caught.value.hint == "the stages are one, stage-1"
