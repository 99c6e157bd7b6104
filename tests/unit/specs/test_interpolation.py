"""Variables in values."""

from __future__ import annotations

import pytest

from specs.interpolation import Interpolator, TemplateError, interpolate, variables
from specs.source import wrap


def substitute(template: str, **values: str) -> str:
    return Interpolator(values.get).substitute(template)


@pytest.mark.parametrize(
    ("template", "unset", "empty", "given"),
    [
        ("$A", "", "", "v"),
        ("${A}", "", "", "v"),
        ("${A:-d}", "d", "d", "v"),
        ("${A-d}", "d", "", "v"),
        ("${A:+r}", "", "", "r"),
        ("${A+r}", "", "r", "r"),
        ("x${A}y", "xy", "xy", "xvy"),
    ],
)
def test_each_form_with_an_unset_an_empty_and_a_given_variable(
    template: str, unset: str, empty: str, given: str
) -> None:
    assert substitute(template) == unset
    assert substitute(template, A="") == empty
    assert substitute(template, A="v") == given


def test_a_required_variable_that_is_missing_is_an_error_with_its_message() -> None:
    with pytest.raises(TemplateError, match="required variable A is missing a value: set A"):
        substitute("${A:?set A}", A="")
    with pytest.raises(TemplateError, match="required variable A"):
        substitute("${A?}")
    assert substitute("${A?}", A="") == ""


def test_words_nest_and_are_expanded_only_when_they_are_used() -> None:
    interpolator = Interpolator({"B": "b"}.get)
    assert interpolator.substitute("${A:-${B:-${C}}}") == "b"
    assert interpolator.substitute("${B:-${C?never}}") == "b"
    assert interpolator.unset == {}


def test_a_doubled_dollar_is_a_dollar_and_is_not_expanded() -> None:
    assert substitute("$$A $${A} $$$A", A="v") == "$A ${A} $v"


def test_a_value_is_not_expanded_again() -> None:
    assert substitute("$A", A="$B", B="b") == "$B"


@pytest.mark.parametrize("template", ["${}", "${ }", "${A!}", "${A", "${1}", "${A:=x}", "${A:-\n}"])
def test_a_malformed_reference_is_refused(template: str) -> None:
    with pytest.raises(TemplateError, match="invalid interpolation format"):
        substitute(template)


@pytest.mark.parametrize("text", ["a $ b", "100$", "$5", "$.x"])
def test_a_dollar_that_starts_no_name_is_literal(text: str) -> None:
    assert substitute(text) == text


def test_keys_are_left_alone_and_every_unset_variable_warns_once() -> None:
    tree = wrap({"$A": "$A", "list": ["$B", "$B", "${C:-c}"]})
    issues: list[object] = []
    warnings: list[object] = []
    interpolate(tree, Interpolator({}.get), issues=issues, warnings=warnings)  # type: ignore[arg-type]
    assert tree.plain() == {"$A": "", "list": ["", "", "c"]}
    assert issues == []
    assert len(warnings) == 2


def test_strings_become_numbers_and_booleans_where_those_belong() -> None:
    tree = wrap({"services": {"a": {"scale": "$N", "tty": "yes", "image": "1", "cpus": "0.5"}}})
    interpolate(tree, Interpolator({"N": "3"}.get), issues=[], warnings=[])
    assert tree.plain()["services"]["a"] == {"scale": 3, "tty": True, "image": "1", "cpus": 0.5}


def test_variables_are_found_within_words_too() -> None:
    found = list(variables("$A ${B:-x${C}} ${D:?no} ${E:+$F} $$G"))
    assert [variable.name for variable in found] == ["A", "B", "C", "D", "E", "F"]
    assert found[1].default == "x${C}"
    assert found[3].required
    assert found[4].alternate == "$F"
