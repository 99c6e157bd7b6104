"""Specs that are Jinja2 templates."""

from __future__ import annotations

import pytest

from specs import templates
from specs.errors import SpecError
from tests.unit.specs.conftest import Load

TEMPLATE = """services:
{% for name in names %}
  {{ name }}:
    image: {{ values.image }}:{{ tag }}
{% endfor %}
"""


def test_a_template_is_rendered_with_values_and_settings(load: Load) -> None:
    files = {
        "compose.yaml.j2": TEMPLATE,
        "values.yaml": "names: [a, b]\nimage: x\ntag: one\n",
    }
    loaded = load(files, value_files=("values.yaml",), settings=("tag=2.0", "deep.er=1"))
    assert {k: v.image for k, v in loaded.project.services.items()} == {"a": "x:2.0", "b": "x:2.0"}
    assert next(iter(loaded.rendered.values())).startswith("services:\n  a:\n")


def test_settings_are_nested_scalars() -> None:
    values = templates.parse_settings(("a.b=1", "a.c=x y", "d=true", "e="))
    assert values == {"a": {"b": 1, "c": "x y"}, "d": True, "e": ""}


@pytest.mark.parametrize("setting", ["a", "=1", "a b=1", "a..b=1"])
def test_a_setting_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(SpecError, match="key=value"):
        templates.parse_settings((setting,))


@pytest.mark.parametrize(
    ("template", "line", "message"),
    [
        ("services:\n  a:\n    image: {{ nope }}\n", 3, "'nope' is undefined"),
        ("services:\n{% if %}\n", 2, "template: "),
        ("services:\n  a:\n    image: {{ 1 / 0 }}\n", 3, "division by zero"),
        ("services:\n\n  a:\n    imagee: x\n", 4, 'unknown key "imagee"'),
        ("{# one\ntwo #}\nservices:\n  a: [}\n", 4, "did not find expected"),
    ],
)
def test_a_fault_is_at_the_line_of_the_template(
    load: Load, template: str, line: int, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load({"compose.yaml.j2": template})
    issue = caught.value.issues[0]
    assert issue.file is not None and issue.file.endswith(".j2")
    assert message in issue.message
    assert issue.line == line


def test_a_fault_below_a_loop_is_at_its_own_line(load: Load) -> None:
    template = (
        "services:\n{% for i in range(5) %}\n  s{{ i }}: {image: x}\n{% endfor %}\n"
        "  last:\n    imagee: x\n"
    )
    with pytest.raises(SpecError) as caught:
        load({"compose.yaml.j2": template})
    assert caught.value.issues[0].line == 6
    assert caught.value.issues[0].source_line == "    imagee: x"


def test_a_template_runs_in_a_sandbox(load: Load) -> None:
    with pytest.raises(SpecError, match="template: "):
        load({"compose.yaml.j2": "x-a: {{ ''.__class__.__mro__[1].__subclasses__() }}\n"})
    with pytest.raises(SpecError, match="template: "):
        load({"compose.yaml.j2": "x-a: {{ range(999999999) | list | length }}\n"})
    for expression in ("'a' * 10**10", "10**10 * [1]", "9 ** 99999999"):
        with pytest.raises(SpecError, match="too l"):
            load({"compose.yaml.j2": f"x-a: {{{{ {expression} }}}}\n"})
